//! Bars and curves as SVG: plain text, so that a report's pictures are versioned like it.

use crate::ratio::rounded;

/// Groups of bars, each with its least and most as a whisker. Every group has a scale of its own:
/// what is compared are the bars in it.
pub struct Bars {
    pub title: String,
    pub groups: Vec<Group>,
}

pub struct Group {
    pub case: String,
    /// Whose, and least, median, most.
    pub bars: Vec<(String, [f64; 3])>,
}

/// Latency by quantile; the quantiles' axis is stretched towards 1, that of latency logarithmic.
pub struct Curves {
    pub title: String,
    pub lines: Vec<Line>,
}

pub struct Line {
    pub name: String,
    /// Quantile and µs, in order.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 860.0;

/// The same colour for the same contender everywhere.
fn colour(name: &str) -> &'static str {
    match name {
        "sluice" => "#0b6e99",
        "envoy" => "#ac6199",
        "haproxy" => "#6a994e",
        "nginx" => "#bc8a3c",
        "none" => "#9a9a9a",
        _ => "#444444",
    }
}

fn begin(height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Bars {
    pub fn draw(&self) -> String {
        let height = 40.0 + self.groups.iter().map(|group| 30.0 + 20.0 * group.bars.len() as f64).sum::<f64>();
        let (mut out, mut y) = (begin(height, &self.title), 48.0);
        for Group { case, bars } in &self.groups {
            out += &format!("<text x=\"12\" y=\"{y}\" fill=\"#555\">{}</text>\n", escaped(case));
            y += 6.0;
            let most = bars.iter().map(|(_, [_, _, most])| *most).fold(f64::MIN_POSITIVE, f64::max);
            for (name, values) in bars {
                out += &bar(name, values, y, 560.0 / most);
                y += 20.0;
            }
            y += 24.0;
        }
        out + "</svg>\n"
    }
}

fn bar(name: &str, &[least, median, most]: &[f64; 3], y: f64, scale: f64) -> String {
    // What is taken off may be more than what it is taken from: a bar then has no length, but its number.
    let at = |value: f64| 90.0 + value.max(0.0) * scale;
    let (middle, end) = (y + 8.0, at(most).max(at(median)) + 8.0);
    format!(
        "<text x=\"84\" y=\"{}\" text-anchor=\"end\">{name}</text>\n\
         <rect x=\"90\" y=\"{y}\" width=\"{:.1}\" height=\"16\" fill=\"{}\"/>\n\
         <path d=\"M{:.1} {middle}H{:.1}\" stroke=\"#222\" stroke-width=\"1.5\"/>\n\
         <text x=\"{end:.1}\" y=\"{}\">{}</text>\n",
        y + 12.0,
        at(median) - 90.0,
        colour(name),
        at(least),
        at(most),
        y + 12.0,
        rounded(median)
    )
}

const CURVES_HEIGHT: f64 = 420.0;
/// Left, right, top and bottom of the field.
const FIELD: [f64; 4] = [70.0, 740.0, 44.0, 370.0];
const MARKS: [f64; 6] = [0.1, 0.5, 0.9, 0.99, 0.999, 0.9999];

/// Each further nine takes as much room.
fn along(quantile: f64) -> f64 {
    let nines = -(1.0 - quantile).log10();
    FIELD[0] + (FIELD[1] - FIELD[0]) * nines / 4.2
}

impl Curves {
    pub fn draw(&self) -> String {
        let mut out = begin(CURVES_HEIGHT, &format!("{}: latency, µs", self.title));
        let values = || self.lines.iter().flat_map(|line| &line.points).map(|(_, value)| value.max(1.0));
        let bottom = 10f64.powf(values().fold(f64::INFINITY, f64::min).log10().floor());
        let top = 10f64.powf(values().fold(10.0, f64::max).log10().ceil()).max(bottom * 10.0);
        let up = |value: f64| {
            FIELD[3] - (FIELD[3] - FIELD[2]) * (value.max(bottom) / bottom).log10() / (top / bottom).log10()
        };
        out += &grid(bottom, top, &up);
        for (number, line) in self.lines.iter().enumerate() {
            let points = line.points.iter().filter(|(quantile, _)| *quantile < 1.0);
            let points: Vec<_> = points.map(|(q, value)| format!("{:.1},{:.1}", along(*q), up(*value))).collect();
            let (colour, y) = (colour(&line.name), FIELD[2] + 20.0 * number as f64 + 10.0);
            out += &format!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
                 <rect x=\"755\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\n\
                 <text x=\"773\" y=\"{y}\">{}</text>\n",
                points.join(" "),
                y - 11.0,
                escaped(&line.name)
            );
        }
        out + "</svg>\n"
    }
}

fn grid(bottom: f64, top: f64, up: &dyn Fn(f64) -> f64) -> String {
    let mut out = String::new();
    for quantile in MARKS {
        let (x, name) = (along(quantile), format!("p{}", (quantile * 1e4).round() / 100.0));
        out += &format!(
            "<path d=\"M{x:.1} {}V{}\" stroke=\"#ddd\"/>\n<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{name}</text>\n",
            FIELD[2],
            FIELD[3],
            FIELD[3] + 18.0
        );
    }
    let mut value = bottom;
    while value <= top * 1.001 {
        for part in [1.0, 2.0, 5.0].map(|part| part * value).into_iter().filter(|part| *part <= top * 1.001) {
            let y = up(part);
            out += &format!(
                "<path d=\"M{} {y:.1}H{}\" stroke=\"#ddd\"/>\n<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                FIELD[0],
                FIELD[1],
                FIELD[0] - 6.0,
                y + 4.0,
                part.round()
            );
        }
        value *= 10.0;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_keep_their_proportions_and_negative_ones_have_no_length() {
        let bars = vec![("envoy".into(), [1.0, 2.0, 4.0]), ("sluice".into(), [-2.0, -1.0, -0.5])];
        let group = Group { case: "a case".into(), bars };
        let text = Bars { title: "a < b".into(), groups: vec![group] }.draw();
        assert!(text.contains("width=\"280.0\"") && text.contains("width=\"0.0\""), "{text}");
        assert!(text.contains("a &lt; b") && text.contains(">-1.00<"), "{text}");
    }

    #[test]
    fn higher_latencies_are_drawn_higher() {
        let line = |name: &str, value| Line { name: name.into(), points: vec![(0.5, value), (0.99, value * 2.0)] };
        let text = Curves { title: "a case".into(), lines: vec![line("envoy", 100.0), line("sluice", 30.0)] }.draw();
        let heights: Vec<f64> = text
            .lines()
            .filter_map(|l| l.strip_prefix("<polyline points=\"")?.split([',', ' ']).nth(1)?.parse().ok())
            .collect();
        assert!(heights[0] < heights[1], "{heights:?}");
    }
}
