//! Certificates and keys as operators have them: made by the `openssl` command.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::process::Command;

pub const ID: &str = "spiffe://example.com/myapp/app/frontend";
pub const DAY: u64 = 86_400;

/// Standard output of a command that must succeed.
pub fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A root, and what it signs.
pub struct Authority {
    directory: tempfile::TempDir,
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub certificate: String,
    pub key: String,
}

/// The options of `openssl genpkey` for a key on P-256.
pub const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const SVID: &str = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
                    extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=URI:";

impl Authority {
    pub fn new() -> Self {
        Self::for_days(3650)
    }

    pub fn for_days(days: u32) -> Self {
        let authority = Self { directory: tempfile::tempdir().unwrap() };
        let (key, certificate) = (authority.file("root.key"), authority.file("root.crt"));
        openssl(&[&["genpkey", "-out", &key], P256].concat());
        openssl(&[
            "req",
            "-x509",
            "-new",
            "-key",
            &key,
            "-out",
            &certificate,
            "-days",
            &days.to_string(),
            "-subj",
            "/O=root",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        ]);
        authority
    }

    pub fn root(&self) -> String {
        std::fs::read_to_string(self.path("root.crt")).unwrap()
    }

    /// The SVID of [`ID`] on a new P-256 key, valid for a day.
    pub fn svid(&self) -> Leaf {
        self.leaf(P256, &format!("{SVID}{ID}"))
    }

    pub fn svid_of(&self, ids: &str) -> Leaf {
        self.leaf(P256, &format!("{SVID}{ids}"))
    }

    /// The SVID of [`ID`] on a key of these options of `openssl genpkey`.
    pub fn svid_on(&self, key: &[&str]) -> Leaf {
        self.leaf(key, &format!("{SVID}{ID}"))
    }

    pub fn svid_for_days(&self, days: u32) -> Leaf {
        self.signed("root", ("leaf", "/O=leaf"), P256, &format!("{SVID}{ID}"), &days.to_string())
    }

    /// A certificate with these extensions.
    pub fn leaf(&self, key: &[&str], extensions: &str) -> Leaf {
        self.leaf_of("/O=leaf", key, extensions)
    }

    /// A certificate of this subject with these extensions.
    pub fn leaf_of(&self, subject: &str, key: &[&str], extensions: &str) -> Leaf {
        self.signed("root", ("leaf", subject), key, extensions, "1")
    }

    /// The SVID of [`ID`] below an intermediate, which stands behind it.
    pub fn svid_by_intermediate(&self) -> Leaf {
        let ca = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign";
        let between = self.signed("root", ("between", "/O=between"), P256, ca, "1");
        let leaf = self.signed("between", ("leaf", "/O=leaf"), P256, &format!("{SVID}{ID}"), "1");
        Leaf { certificate: leaf.certificate + &between.certificate, ..leaf }
    }

    fn signed(
        &self,
        issuer: &str,
        (name, subject): (&str, &str),
        options: &[&str],
        extensions: &str,
        days: &str,
    ) -> Leaf {
        let [key, request, certificate, text] =
            ["key", "csr", "crt", "ext"].map(|end| self.file(&format!("{name}.{end}")));
        std::fs::write(&text, extensions).unwrap();
        openssl(&[&["genpkey", "-out", &key], options].concat());
        openssl(&["req", "-new", "-key", &key, "-out", &request, "-subj", subject]);
        let (ca, ca_key) = (self.file(&format!("{issuer}.crt")), self.file(&format!("{issuer}.key")));
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-out",
            &certificate,
            "-days",
            days,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-extfile",
            &text,
        ]);
        let read = |path| std::fs::read_to_string(path).unwrap();
        Leaf { certificate: read(certificate), key: read(key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

impl Leaf {
    /// The key run through a command of openssl, such as `["ec"]` for SEC1.
    pub fn key_by(&self, command: &[&str]) -> String {
        with_file(&self.key, |path| openssl(&[command, &["-in", path]].concat()))
    }

    /// With the text that `openssl x509 -text` puts before the block.
    pub fn with_text(&self) -> String {
        with_file(&self.certificate, |path| openssl(&["x509", "-text", "-in", path]))
    }

    /// In lower case.
    pub fn serial(&self) -> String {
        let said = with_file(&self.certificate, |path| openssl(&["x509", "-noout", "-serial", "-in", path]));
        said.trim().trim_start_matches("serial=").to_lowercase()
    }

    pub fn public_key(&self) -> String {
        with_file(&self.certificate, |path| openssl(&["x509", "-noout", "-pubkey", "-in", path]))
    }
}

pub fn with_file<T>(content: impl AsRef<[u8]>, run: impl FnOnce(&str) -> T) -> T {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    run(file.path().to_str().unwrap())
}

/// Writes a file that its owner alone can read.
pub fn put(directory: &Path, name: &str, content: &str) {
    put_with_mode(directory, name, content, 0o600);
}

pub fn put_with_mode(directory: &Path, name: &str, content: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A volume as the kubelet writes it: files in a directory of their own, `..data` leading there, and
/// the names leading through `..data`. Again for new files: one rename swaps all.
pub fn volume(directory: &Path, generation: &str, files: &[(&str, &str)], mode: u32) {
    use std::os::unix::fs::symlink;
    let own = format!("..{generation}");
    for (name, content) in files {
        put_with_mode(&directory.join(&own), name, content, mode);
    }
    symlink(&own, directory.join("..data_tmp")).unwrap();
    let before = std::fs::read_link(directory.join("..data")).ok();
    std::fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
    for (name, _) in files {
        if directory.join(name).symlink_metadata().is_err() {
            symlink(format!("..data/{name}"), directory.join(name)).unwrap();
        }
    }
    if let Some(before) = before {
        std::fs::remove_dir_all(directory.join(before)).unwrap();
    }
}
