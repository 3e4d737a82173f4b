//! The raw forward on real cables: every frame arrives, or there is no figure. Needs root.

use bench::limits::Limit;

#[test]
fn the_raw_forward_is_measured_and_takes_its_namespaces_and_pins_away() {
    let (figures, foreign) = Limit::Forward.measure(0.2).unwrap();
    assert_eq!(figures.len(), 8, "two of each way: {figures:?}");
    assert!(figures.values().all(|figure| figure.value > 0.0 && figure.value.is_finite()), "{figures:?}");
    assert!((0.0..=1.5).contains(&foreign), "{foreign}");
    let ours = format!("sl-{}-", std::process::id());
    for place in ["/run/netns", "/sys/fs/bpf/sluice", "/run/sluice-rig"] {
        let names = std::fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with(&ours)).collect();
        assert!(left.is_empty(), "{place} still has {left:?}");
    }
}
