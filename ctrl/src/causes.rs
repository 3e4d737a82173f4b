//! An error in one line, with what it came from.

use std::error::Error;

/// `text` says what `error` is; its causes follow as long as they say more.
pub fn with_causes(text: &str, error: &(dyn Error + 'static)) -> String {
    let mut told = text.to_owned();
    for cause in std::iter::successors(error.source(), |cause| (*cause).source()) {
        let more = cause.to_string();
        if !told.contains(&more) {
            told = format!("{told}: {more}");
        }
    }
    told
}
