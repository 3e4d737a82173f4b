//! When to ask again: as often as who publishes says, within bounds, and after a failure soon, then later.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use crate::source::spire::back_off;

/// SPIFFE Federation §5.2.7: by the refresh hint; where there is none, after five minutes.
pub fn of_bundle(refresh: Option<Duration>, hint: Option<u64>) -> Duration {
    let hinted = || match hint {
        None | Some(0) => UNHINTED,
        Some(seconds) => Duration::from_secs(seconds).clamp(LEAST_HINT, MOST_HINT),
    };
    refresh.unwrap_or_else(hinted)
}

/// At the interval, and at half of what is left until the nextUpdate: the next CRL is there before that. Times are
/// seconds since the epoch.
pub fn of_crl(refresh: Duration, next_update: u64, now: u64) -> Duration {
    let left = Duration::from_secs(next_update.saturating_sub(now));
    refresh.min((left / 2).max(LEAST_CRL))
}

/// `failures`: those before it. Never later than it would have been asked for anyway.
pub fn after_failure(failures: u32, regular: Duration) -> Duration {
    back_off(failures, LONGEST).min(regular)
}

/// Up to a quarter sooner: gateways that were started together do not ask together.
pub fn spread(regular: Duration) -> Duration {
    let chance = RandomState::new().hash_one(0) % 251;
    regular.mul_f64((1000 - chance) as f64 / 1000.0)
}

const UNHINTED: Duration = Duration::from_secs(300);
const LEAST_HINT: Duration = Duration::from_secs(10);
const MOST_HINT: Duration = Duration::from_secs(86_400);
const LEAST_CRL: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_hint_is_followed_within_bounds_and_what_is_configured_instead_of_it() {
        for (refresh, hint, want) in [
            (None, None, 300),
            (None, Some(0), 300),
            (None, Some(1), 10),
            (None, Some(10), 10),
            (None, Some(600), 600),
            (None, Some(86_401), 86_400),
            (None, Some(u64::MAX), 86_400),
            (Some(1), Some(600), 1),
            (Some(3_600), None, 3_600),
        ] {
            assert_eq!(of_bundle(refresh.map(Duration::from_secs), hint), Duration::from_secs(want), "{hint:?}");
        }
    }

    #[test]
    fn a_crl_is_looked_for_the_oftener_the_nearer_its_end_is() {
        let at = |left: u64| of_crl(HOUR, 1_000_000 + left, 1_000_000).as_secs();
        assert_eq!([86_400, 7_200, 3_600, 600, 119, 0].map(at), [3_600, 3_600, 1_800, 300, 60, 60]);
        assert_eq!(of_crl(HOUR, 5, 1_000_000).as_secs(), 60, "it is over");
        assert_eq!(of_crl(Duration::from_secs(1), 5, 1_000_000).as_secs(), 1, "the interval is the most");
    }

    #[test]
    fn failures_are_tried_again_soon_then_later_and_no_two_gateways_alike() {
        assert!(after_failure(0, HOUR) < Duration::from_secs(1));
        assert!(after_failure(30, HOUR) >= LONGEST.mul_f64(0.75) && after_failure(30, HOUR) <= LONGEST.mul_f64(1.25));
        assert_eq!(after_failure(30, Duration::from_secs(7)), Duration::from_secs(7));
        let all: Vec<_> = (0..200).map(|_| spread(HOUR)).collect();
        let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
        assert!(*least >= HOUR.mul_f64(0.75) && *most <= HOUR && *most - *least > HOUR / 10, "{least:?} to {most:?}");
    }
}
