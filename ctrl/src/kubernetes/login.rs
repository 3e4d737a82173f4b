//! What is told of a way in that fails: never what a program has printed or a kubeconfig holds, since that may
//! be the very secret that it is about.

use std::error::Error;

use kube::client::AuthError;
use kube::config::KubeconfigError;

/// In place of the error's own words, where those would quote.
pub fn told(error: &(dyn Error + 'static)) -> Option<String> {
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(login), _) => of_login(login),
        (None, Some(KubeconfigError::Parse(error))) => {
            let at = error.location().map(|at| format!(" in line {}, column {}", at.line(), at.column()));
            Some(format!("failed to parse kubeconfig: it is no YAML of that kind{}", at.unwrap_or_default()))
        }
        (None, _) => None,
    }
}

fn of_login(error: &AuthError) -> Option<String> {
    match error {
        // Its `cmd` has the command's environment too.
        AuthError::AuthExecRun { out, .. } => Some(format!("the kubeconfig's command failed ({})", out.status)),
        AuthError::AuthExecParse(_) | AuthError::ParseTokenKey(_) => {
            Some("what the kubeconfig's command prints is no ExecCredential".into())
        }
        AuthError::MalformedTokenExpirationDate(_) => {
            Some("the kubeconfig's command gives an expirationTimestamp that is no time".into())
        }
        _ => None,
    }
}
