//! The way to the API server: by a kubeconfig or by the pod's service account, read anew with each
//! connection, and answers that are bounded before they are parsed.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::{Client, Config};
use tokio::time::{Instant, timeout_at};

use super::fault::{Fault, chain};
use super::listed::Asked;
use crate::config::Kubernetes;

/// A page of a list, or one line of a watch.
pub const LARGEST: usize = 32 << 20;
/// What an error may say.
const LARGEST_ERROR: usize = 64 << 10;
const CONNECT: Duration = Duration::from_secs(5);
const BUILD: Duration = Duration::from_secs(15);

/// And the server's URL.
pub async fn connect(spec: &Kubernetes) -> Result<(Client, String), Fault> {
    let mut config = config(spec).await?;
    // Who fails is asked again by us, after a pause.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    // It may run a program of the kubeconfig's, for as long as that likes.
    let building = tokio::task::spawn_blocking(move || ClientBuilder::try_from(config).map(ClientBuilder::build));
    match tokio::time::timeout(BUILD, building).await {
        Err(_late) => Err(Fault::Config(format!("the kubeconfig's way to log in takes over {BUILD:?}"))),
        Ok(built) => match built.expect("building a client does not panic") {
            Ok(client) => Ok((client, server)),
            Err(error) => Err(Fault::Config(chain(&error))),
        },
    }
}

async fn config(spec: &Kubernetes) -> Result<Config, Fault> {
    let Some(path) = &spec.kubeconfig else {
        return Config::incluster().map_err(|error| Fault::Config(format!("in-cluster: {}", chain(&error))));
    };
    let broken = |error: kube::config::KubeconfigError| Fault::Config(format!("{}: {}", path.display(), chain(&error)));
    let file = path.clone();
    let read = tokio::task::spawn_blocking(move || Kubeconfig::read_from(file)).await.expect("reading does not panic");
    let options = KubeConfigOptions { context: spec.context.clone(), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(read.map_err(broken)?, &options).await.map_err(broken)
}

/// One kind of request, and how long it may take.
pub struct Ask<'a> {
    pub client: &'a Client,
    pub asked: &'a Asked,
    pub verb: &'static str,
    pub answer: Duration,
}

impl Ask<'_> {
    /// The body of an answer that is no error; it may go on for as long as it likes.
    pub async fn send(&self, request: hyper::Request<Vec<u8>>) -> Result<Body, Fault> {
        let soon = Instant::now() + self.answer;
        let answered = match timeout_at(soon, self.client.send(request.map(Body::from))).await {
            Err(_late) => return Err(Fault::Silent(self.answer.as_secs())),
            Ok(Err(error)) => return Err(Fault::Away(chain(&error))),
            Ok(Ok(answered)) => answered,
        };
        let (code, body) = (answered.status(), answered.into_body());
        if code.is_success() {
            return Ok(body);
        }
        let said = self.whole(body, LARGEST_ERROR, soon).await.unwrap_or_default();
        let status: Status = serde_json::from_slice(&said).unwrap_or_default();
        Err(self.refusal(code.as_u16(), status))
    }

    /// The same, read to its end in time.
    pub async fn read(&self, request: hyper::Request<Vec<u8>>) -> Result<Bytes, Fault> {
        let soon = Instant::now() + self.answer;
        let body = self.send(request).await?;
        self.whole(body, LARGEST, soon).await
    }

    async fn whole(&self, body: Body, most: usize, until: Instant) -> Result<Bytes, Fault> {
        let collected = http_body_util::Limited::new(body, most).collect();
        match timeout_at(until, collected).await {
            Err(_late) => Err(Fault::Silent(self.answer.as_secs())),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Fault::Large(most >> 20)),
            Ok(Err(error)) => Err(Fault::Away(chain(&*error))),
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
        }
    }

    /// What an error says, whether it is the answer's or comes in a watch.
    pub fn refusal(&self, code: u16, status: Status) -> Fault {
        let code = if status.code == 0 { code } else { status.code };
        let message = match (status.message, status.reason) {
            (message, reason) if message.is_empty() => reason,
            (message, _) => message,
        };
        let message: String = message.chars().filter(|c| !c.is_control()).take(LONGEST_MESSAGE).collect();
        match code {
            401 => Fault::Unknown(message),
            403 => {
                let group = if self.asked.group.is_empty() { "the core group".into() } else { self.asked.group.into() };
                Fault::Denied { verb: self.verb, resource: self.asked.resource.clone(), group, message }
            }
            410 => Fault::Gone(message),
            code => Fault::Refused { code, message },
        }
    }
}

const LONGEST_MESSAGE: usize = 500;
