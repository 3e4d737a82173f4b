//! A secret, and the file that it is read from.

use std::path::Path;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::source::files::read::read;
use crate::source::svid;

/// Wiped when dropped, and shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn shown_to_server(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// From a server, which may say anything: what is taken goes into a header.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(from)?);
        one_word(&text).map_err(D::Error::custom)?;
        Ok(Self(text))
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

/// Whether others may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Not those who are neither its owner nor of its group.
    Private,
    /// As it is: the kubelet writes tokens of service accounts 0644, into a volume of the pod's own.
    Any,
}

/// One line, without the spaces and newlines around it. Err says what is wrong, and nothing of what is there.
pub fn read_file(path: &Path, mode: Mode) -> Result<Secret, String> {
    let content = read(path).map_err(|fault| bare(fault, path))?;
    if mode == Mode::Private && content.mode & 0o007 != 0 {
        let (mode, path) = (content.mode, path.display());
        return Err(format!("mode {mode:04o} lets everybody read a secret; run: chmod o-rwx {path}"));
    }
    let text = std::str::from_utf8(&content.bytes).map_err(|_| "is no text")?.trim();
    one_word(text)?;
    Ok(Secret(Zeroizing::new(text.to_owned())))
}

/// Err says what it is instead, and repeats nothing of it.
fn one_word(text: &str) -> Result<(), String> {
    match text.len() {
        0 => Err("is empty".into()),
        length if length > LONGEST => Err(format!("{length} bytes; a token or secret ID has at most {LONGEST}")),
        _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => Err("is not one word of printable ASCII".into()),
        _ => Ok(()),
    }
}

/// Without the path that it begins with: whoever names the field names that.
pub fn bare(fault: svid::Fault, path: &Path) -> String {
    let text = fault.to_string();
    text.strip_prefix(&format!("{}: ", path.display())).map_or(text.clone(), str::to_owned)
}

/// Tokens of service accounts are the longest, at one to four KiB.
const LONGEST: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_credential_is_one_word_that_not_everybody_may_read_and_is_never_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let put = |content: &[u8], mode: u32| {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        put(b"  s.abcdefg\n", 0o640);
        let secret = read_file(&path, Mode::Private).unwrap();
        assert_eq!(secret.shown_to_server(), "s.abcdefg");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        put(&[b'x'; LONGEST], 0o600);
        assert!(read_file(&path, Mode::Private).is_ok());
        let shown = path.display();
        for (name, content, mode, want) in [
            (
                "everybody's",
                &b"s.abc"[..],
                0o644,
                format!("mode 0644 lets everybody read a secret; run: chmod o-rwx {shown}"),
            ),
            ("nothing", b" \n", 0o600, "is empty".into()),
            ("two words", b"s.abc s.def", 0o600, "is not one word of printable ASCII".into()),
            ("a header more", b"s.abc\r\nX-Evil: 1", 0o600, "is not one word of printable ASCII".into()),
            ("no text", &[0xff, 0xfe], 0o600, "is no text".into()),
            (
                "too long",
                &[b'x'; LONGEST + 1],
                0o600,
                format!("{} bytes; a token or secret ID has at most {LONGEST}", LONGEST + 1),
            ),
        ] {
            put(content, mode);
            assert_eq!(read_file(&path, Mode::Private), Err(want), "{name}");
        }
        put(b"s.abc", 0o644);
        assert!(read_file(&path, Mode::Any).is_ok());
        std::fs::remove_file(&path).unwrap();
        assert!(read_file(&path, Mode::Private).unwrap_err().contains("No such file"));
        assert_eq!(read_file(directory.path(), Mode::Private), Err("is no regular file".into()));
    }
}
