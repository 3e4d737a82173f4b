//! Certificates under Sluice's own authority, for those who are not Sluice: P-256, root and one
//! intermediate, as SVIDs have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use pktgen_tests::netns::gateway::binary;
use pktgen_tests::netns::run;

/// Files in a directory that only root reads.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Leaf and intermediate.
    pub chain: PathBuf,
    pub key: PathBuf,
    /// All of it in one file.
    pub pem: PathBuf,
    pub root: PathBuf,
}

impl Certificate {
    /// With the SPIFFE ID, and with `host` for those who verify names.
    pub fn issue(authority: &Path, directory: &Path, host: &str, id: &str) -> Result<Self> {
        let mut issue = Command::new(binary("sluice")?);
        issue.args(["ca", "issue-node", "--node", host, "--root"]).arg(authority).arg("--out").arg(directory);
        run(issue, Duration::from_secs(20))?.ok()?;
        fs::write(directory.join("leaf.ext"), format!("{EXTENSIONS}subjectAltName = URI:{id},DNS:{host}.peer\n"))?;
        openssl(
            directory,
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /O=bench -keyout leaf.key -out leaf.csr",
        )?;
        openssl(
            directory,
            "x509 -req -days 1 -set_serial 1 -in leaf.csr -CA node.crt -CAkey node.key -extfile leaf.ext -out leaf.crt",
        )?;
        let read = |part: &str| fs::read_to_string(directory.join(part)).with_context(|| format!("read {part}"));
        let (chain, key) = (read("leaf.crt")? + &read("node.crt")?, read("leaf.key")?);
        let made = Self {
            chain: directory.join("chain.pem"),
            key: directory.join("leaf.key"),
            pem: directory.join("all.pem"),
            root: authority.join("root.crt"),
        };
        fs::write(&made.chain, &chain)?;
        fs::write(&made.pem, chain + &key)?;
        Ok(made)
    }
}

fn openssl(directory: &Path, line: &str) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(line.split_whitespace()).current_dir(directory);
    run(command, Duration::from_secs(20))?.ok().map(drop)
}

const EXTENSIONS: &str = "basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\n\
                          extendedKeyUsage = serverAuth, clientAuth\n";
