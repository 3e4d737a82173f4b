//! `spec.audit` of the Gateway: the log of who was let in and who was not.

use snapshot::Audit;

use super::Place;
use super::decode::{Faults, Field};

/// With the place of its `file`.
pub fn decode(map: &Field<'_>, faults: &mut Faults<'_>) -> Option<(Audit, Place)> {
    let mut fields = map.fields(faults)?;
    let file = fields.required("file", faults).and_then(|field| {
        let path = field.parsed(file, "an absolute path to a file, such as /var/log/sluice/audit.jsonl", faults)?;
        Some((path, faults.place(field.at())))
    });
    let max_size = match fields.optional("maxSize") {
        Some(field) => size_of(&field, faults),
        None => Some(100 << 20),
    };
    let keep = match fields.optional("keep") {
        Some(field) => field.integer(1..=1000, faults),
        None => Some(5),
    };
    let accepted = match fields.optional("accepted") {
        Some(field) => field.boolean(faults),
        None => Some(true),
    };
    let per_second = match fields.optional("perSecond") {
        Some(field) => field.integer(1..=100_000, faults),
        None => Some(100),
    };
    fields.finish(faults);
    let (file, place) = file?;
    Some((Audit { file, max_size: max_size?, keep: keep?, accepted: accepted?, per_second: per_second? }, place))
}

/// Below 4095 bytes, with room for what is put behind it when the file is put aside.
fn file(text: &str) -> Result<String, &'static str> {
    let path = std::path::Path::new(text);
    let plain = path.is_absolute() && !text.ends_with('/') && path.components().all(|part| part.as_os_str() != "..");
    match plain && path.file_name().is_some_and(|name| name.len() <= 240) && text.len() <= 4000 {
        true => Ok(text.to_owned()),
        false => Err("not an absolute path to a file"),
    }
}

fn size_of(field: &Field<'_>, faults: &mut Faults<'_>) -> Option<u64> {
    let size = field.parsed(size, "a number with KiB, MiB or GiB, such as 100MiB", faults)?;
    let fits = SIZES.contains(&size);
    if !fits {
        faults.refuse(field, "out of range", "use 64KiB to 64GiB");
    }
    fits.then_some(size)
}

fn size(text: &str) -> Result<u64, &'static str> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or("has no unit")?;
    let number: u64 = text[..digits].parse().map_err(|_| "not a size")?;
    let unit: u64 = match &text[digits..] {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("not a size"),
    };
    number.checked_mul(unit).ok_or("too large")
}

/// A line has some hundred bytes, and two SPIFFE IDs of 2048 and a reason with more of them at the most.
const SIZES: std::ops::RangeInclusive<u64> = 64 << 10..=64 << 30;
