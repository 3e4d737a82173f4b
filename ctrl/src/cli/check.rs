//! check
use clap::Args;
use super::Done;
/// Check that this machine can run the gateway.
#[derive(Debug, Args)]
pub struct Check {}
impl Check {
    pub async fn run(self) -> Done {
        Ok(true)
    }
}
