//! A real OpenBao, as `deploy/setup.sh` fetches it: started on a free port, and gone with the test, however
//! that ends.
//!
//! It is administered through curl, so that nothing of what is under test has a part in it.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod played;
pub mod rig;

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use pktgen_tests::netns::{Namespace, run, wait_until};
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use serde_json::{Value, json};

/// Generous: the machine may be busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Bao {
    /// `https://127.0.0.1:…`.
    pub server: String,
    /// What it is verified by, in PEM.
    pub ca: PathBuf,
    pub root_token: String,
    /// What opens it after it was sealed.
    unseal_key: String,
    log: PathBuf,
    /// Where it runs; None: here.
    at: Option<Namespace>,
    running: Option<Running>,
}

/// The shell that keeps it kills it, and removes what it is given to remove, when the other end of this pipe
/// closes: so also when a test dies.
struct Running {
    keeper: Child,
    pipe: ChildStdin,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.pipe.write_all(b"\n");
        let _ = self.keeper.wait();
    }
}

const KEEPER: &str = r#""$@" </dev/null & pid=$!; read -r _; kill -9 $pid; wait $pid; rm -rf "$0""#;

/// `command` runs sh, wherever that is to be.
fn start(mut command: Command, arguments: &[String], log: &Path, remove: &str) -> Running {
    command.args(["-c", KEEPER, remove]).arg(program()).args(arguments);
    let file = File::options().create(true).append(true).open(log).unwrap();
    command.env("BAO_ADDR", "").env("HOME", log.parent().unwrap()).process_group(0);
    command.stdin(Stdio::piped()).stdout(file.try_clone().unwrap()).stderr(file);
    let mut keeper = command.spawn().expect("a shell starts");
    let pipe = keeper.stdin.take().expect("piped");
    Running { keeper, pipe }
}

/// Below target/, where `deploy/setup.sh` puts what is no Debian package.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let found = own.ancestors().skip(1).take(4).map(|one| one.join("openbao/bao")).find(|path| path.is_file());
    found.expect("target/openbao/bao, which deploy/setup.sh fetches")
}

/// Of this moment; the one behind it, which it takes for its cluster, is free too.
fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < u16::MAX && [port, port + 1].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
            return port;
        }
    }
}

impl Bao {
    /// One for all tests of a binary; each has mounts of its own.
    pub fn shared() -> &'static Self {
        // What is static is not dropped: the shell removes the directory.
        static SHARED: LazyLock<Bao> = LazyLock::new(|| {
            let directory = tempfile::tempdir().unwrap().keep();
            Bao::dev_with(&directory, &directory.display().to_string())
        });
        &SHARED
    }

    /// In memory, open, and with TLS.
    pub fn dev(directory: &Path) -> Self {
        Self::dev_with(directory, "")
    }

    fn dev_with(directory: &Path, remove: &str) -> Self {
        // Somebody else may take the port meanwhile.
        let started = (0..5).find_map(|_| Self::try_dev(directory, remove));
        started.unwrap_or_else(|| panic!("no OpenBao starts; see {}", directory.display()))
    }

    fn try_dev(directory: &Path, remove: &str) -> Option<Self> {
        let (port, log) = (free_port(), directory.join("bao.log"));
        let _ = std::fs::remove_file(&log);
        let arguments = [
            "server".to_owned(),
            "-dev".to_owned(),
            "-dev-tls".to_owned(),
            "-dev-no-store-token".to_owned(),
            format!("-dev-tls-cert-dir={}", directory.display()),
            "-dev-root-token-id=root".to_owned(),
            format!("-dev-listen-address=127.0.0.1:{port}"),
        ];
        let running = start(Command::new("sh"), &arguments, &log, remove);
        let said = wait_until("OpenBao starts or says why not", PATIENCE, || {
            let said = std::fs::read_to_string(&log).ok()?;
            // The last line of its greeting is about the token; what is wrong is said in one line.
            (said.contains("Root Token: root") || said.contains("Error initializing listener")).then_some(said)
        });
        let key = said.unwrap().lines().find_map(|line| line.strip_prefix("Unseal Key: ").map(str::to_owned))?;
        let bao = Self {
            server: format!("https://127.0.0.1:{port}"),
            ca: directory.join("vault-ca.pem"),
            root_token: "root".into(),
            unseal_key: key,
            log,
            at: None,
            running: Some(running),
        };
        bao.until_ready();
        Some(bao)
    }

    /// In a namespace, with what it knows on a disk, so that it can be stopped and started again.
    pub fn kept(at: &Namespace, address: IpAddr, directory: &Path) -> Self {
        std::fs::create_dir_all(directory.join("data")).unwrap();
        let ca = certify(address, directory);
        let here = directory.display();
        let config = format!(
            "storage \"raft\" {{\n path = \"{here}/data\"\n node_id = \"one\"\n performance_multiplier = 1\n}}\n\
             listener \"tcp\" {{\n address = \"{address}:8200\"\n tls_cert_file = \"{here}/tls.crt\"\n \
             tls_key_file = \"{here}/tls.key\"\n}}\n\
             api_addr = \"https://{address}:8200\"\ncluster_addr = \"https://{address}:8201\"\n"
        );
        std::fs::write(directory.join("bao.hcl"), config).unwrap();
        let mut bao = Self {
            server: format!("https://{address}:8200"),
            ca,
            root_token: String::new(),
            unseal_key: String::new(),
            log: directory.join("bao.log"),
            at: Some(at.clone()),
            running: None,
        };
        bao.start();
        let made = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let made = bao.ask("POST", "sys/init", &made).unwrap();
        (bao.root_token, bao.unseal_key) = (text(&made["root_token"]), text(&made["keys"][0]));
        bao.unseal();
        bao
    }

    /// Sealed, as every start leaves it.
    pub fn start(&mut self) {
        let config = self.log.with_file_name("bao.hcl").display().to_string();
        let arguments = ["server".to_owned(), format!("-config={config}")];
        self.running = Some(start(self.command("sh"), &arguments, &self.log, ""));
        let answers = || self.ask("GET", "sys/seal-status", &Value::Null).ok();
        wait_until("OpenBao answers", PATIENCE, answers).unwrap();
    }

    pub fn stop(&mut self) {
        self.running = None;
    }

    fn command(&self, program: &str) -> Command {
        self.at.as_ref().map_or_else(|| Command::new(program), |namespace| namespace.command(program))
    }

    fn until_ready(&self) {
        let ready = || self.ask("GET", "sys/health", &Value::Null).ok().filter(|answer| answer["sealed"] == false);
        wait_until("OpenBao answers", PATIENCE, ready).unwrap();
    }

    /// Err: what it said instead.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        self.ask_in("", method, path, body)
    }

    pub fn ask_in(&self, namespace: &str, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let mut command = self.command("curl");
        command.args(["-sS", "--fail-with-body", "--noproxy", "*", "--max-time", "30", "-X", method]);
        command.arg("--cacert").arg(&self.ca).args(["-H", &format!("X-Vault-Token: {}", self.root_token)]);
        if !namespace.is_empty() {
            command.args(["-H", &format!("X-Vault-Namespace: {namespace}")]);
        }
        if !body.is_null() {
            command.args(["-d", &body.to_string()]);
        }
        command.arg(format!("{}/v1/{path}", self.server));
        let output = run(command, PATIENCE).map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(serde_json::from_str(&output.stdout).unwrap_or(Value::Null)),
            false => Err(format!("{path}: {} {}", output.stdout, output.stderr)),
        }
    }

    pub fn write(&self, path: &str, body: Value) -> Value {
        self.ask("POST", path, &body).unwrap()
    }

    pub fn read(&self, path: &str) -> Value {
        self.ask("GET", path, &Value::Null).unwrap()
    }

    pub fn delete(&self, path: &str) {
        self.ask("DELETE", path, &Value::Null).unwrap();
    }

    /// A PKI with one root, and a role `node` for the IDs of example.com.
    pub fn pki(&self, mount: &str) {
        self.mount_pki(mount);
        self.root(mount, "root-1");
        self.role(mount, "node", json!({}));
    }

    pub fn mount_pki(&self, mount: &str) {
        self.write(&format!("sys/mounts/{mount}"), json!({ "type": "pki", "config": { "max_lease_ttl": "87600h" } }));
    }

    /// Another root. The first one is the default.
    pub fn root(&self, mount: &str, name: &str) {
        let body = json!({
            "common_name": name, "issuer_name": name, "uri_sans": "spiffe://example.com", "key_type": "ec",
            "key_bits": 256, "ttl": "87600h", "exclude_cn_from_sans": true,
        });
        self.write(&format!("{mount}/root/generate/internal"), body);
    }

    /// A role as the documentation has it, with what differs.
    pub fn role(&self, mount: &str, name: &str, other: Value) {
        let mut role = json!({
            "require_cn": false, "allowed_uri_sans": "spiffe://example.com/*", "allow_ip_sans": false,
            "key_type": "ec", "key_bits": 256, "max_ttl": "24h", "no_store": true,
        });
        for (field, value) in other.as_object().expect("a mapping") {
            role[field] = value.clone();
        }
        self.write(&format!("{mount}/roles/{name}"), role);
    }

    /// A policy that lets its tokens have CSRs signed at `path`.
    pub fn policy(&self, name: &str, path: &str) {
        let rule = format!("path \"{path}\" {{ capabilities = [\"update\"] }}");
        self.write(&format!("sys/policies/acl/{name}"), json!({ "policy": rule }));
    }

    /// AppRole at `auth/MOUNT`, with a role `node` under that policy. Returns its role ID and a secret ID.
    pub fn app_role(&self, mount: &str, policy: &str, other: Value) -> (String, String) {
        self.write(&format!("sys/auth/{mount}"), json!({ "type": "approle" }));
        let mut role = json!({ "token_policies": policy, "token_ttl": "1h" });
        for (field, value) in other.as_object().expect("a mapping") {
            role[field] = value.clone();
        }
        self.write(&format!("auth/{mount}/role/node"), role);
        let id = self.read(&format!("auth/{mount}/role/node/role-id"));
        (text(&id["data"]["role_id"]), self.secret_id(mount))
    }

    pub fn secret_id(&self, mount: &str) -> String {
        text(&self.write(&format!("auth/{mount}/role/node/secret-id"), json!({}))["data"]["secret_id"])
    }

    /// A token of its own with these policies.
    pub fn token(&self, body: Value) -> String {
        text(&self.write("auth/token/create", body)["auth"]["client_token"])
    }

    /// All tokens that came by this way are over.
    pub fn revoke_tokens_of(&self, mount: &str) {
        self.write(&format!("sys/leases/revoke-prefix/auth/{mount}/login"), json!({}));
    }

    pub fn seal(&self) {
        self.write("sys/seal", json!({}));
    }

    pub fn unseal(&self) {
        self.write("sys/unseal", json!({ "key": self.unseal_key }));
        self.until_ready();
    }
}

/// `tls.crt` and `tls.key` for a server at that address; returns where its CA is.
fn certify(address: IpAddr, directory: &Path) -> PathBuf {
    let (authority, key) = (played::ca("spiffe://web.example"), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "OpenBao");
    params.subject_alt_names = vec![SanType::IpAddress(address)];
    let leaf = params.signed_by(&key, &*authority).unwrap();
    std::fs::write(directory.join("tls.crt"), leaf.pem()).unwrap();
    put_secret(&directory.join("tls.key"), &key.serialize_pem());
    let ca = directory.join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    ca
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// A secret as a person would put it there.
pub fn put_secret(path: &Path, secret: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let aside = path.with_extension("aside");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&aside).unwrap();
    file.write_all(secret.as_bytes()).unwrap();
    std::fs::rename(aside, path).unwrap();
}

/// A Kubernetes API that knows one token, and whose it is. Returns where it is.
pub async fn reviewer(known: String, who: &'static str) -> (String, tokio::task::JoinHandle<()>) {
    let review = move |body: String| async move {
        let asked: Value = serde_json::from_str(&body).unwrap_or_default();
        let status = match asked["spec"]["token"] == known.as_str() {
            true => json!({
                "authenticated": true, "user": { "username": who, "uid": "u-1" },
                "audiences": asked["spec"]["audiences"],
            }),
            false => json!({ "authenticated": false, "error": "who is that?" }),
        };
        json!({ "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status }).to_string()
    };
    let router = axum::Router::new().fallback(axum::routing::post(review));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    (address, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
}

/// What OpenBao reads of a token before it asks the API; who it is, the API says.
pub fn service_account(name: &str) -> String {
    jwt(&json!({
        "iss": "kubernetes/serviceaccount", "aud": ["https://kubernetes.default.svc"], "jti": name,
        "exp": ctrl::clock::now() + 3600, "nbf": ctrl::clock::now() - 60, "iat": ctrl::clock::now() - 60,
        "kubernetes.io": { "namespace": "sluice-system", "serviceaccount": { "name": "sluice", "uid": "u-1" } },
        "sub": "system:serviceaccount:sluice-system:sluice",
    }))
}

/// With a signature that is none.
fn jwt(claims: &Value) -> String {
    let header = json!({ "alg": "RS256", "typ": "JWT" });
    [&header.to_string(), &claims.to_string(), "signature"].map(|part| base64url(part.as_bytes())).join(".")
}

/// RFC 4648 §5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let group = |group: &[u8]| {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        (0..=group.len())
            .map(move |nth| char::from(ALPHABET[(bits >> (18 - 6 * nth)) as usize & 63]))
            .collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}
