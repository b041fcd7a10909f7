//! One chart: what a scrape costs each server. Logarithmic, because the peers are orders of magnitude apart.

use std::fmt::Write as _;

use crate::{
    http::Encoding,
    results::{Cost, Results, Task, Who},
    shard::Change,
    table::{figure, thousands},
    workload::SERIES_PER_SHARD,
};

const WIDTH: f64 = 760.0;
/// Where bars begin; their names are left of it.
const LEFT: f64 = 190.0;
/// Room for the figure behind the longest bar.
const RIGHT: f64 = 70.0;
const TOP: f64 = 44.0;
const BAR: f64 = 14.0;
/// From one server to the next: a bar for each encoding, and a gap.
const STEP: f64 = 2.0 * BAR + 12.0;
const COLOURS: [&str; 2] = ["#2f6fb0", "#e08a2c"];

/// The chart as SVG, or nothing if nothing was measured.
pub(crate) fn svg(results: &Results) -> Option<String> {
    let rows: Vec<(Who, [f64; 2])> =
        Who::ALL.into_iter().filter_map(|who| Some((who, millis(results, who)?))).collect();
    let all = || rows.iter().flat_map(|(_, bars)| *bars);
    // Whole decades, so that the grid's lines are round numbers.
    let least = all().min_by(f64::total_cmp)?.log10().floor();
    let most = all().max_by(f64::total_cmp)?.log10().ceil().max(least + 1.0);
    let x = |ms: f64| LEFT + (WIDTH - LEFT - RIGHT) * (ms.log10() - least) / (most - least);
    let bottom = TOP + STEP * rows.len() as f64;
    let height = bottom + 28.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let title = format!(
        "A scrape of {} series after 10 % changed: CPU of the server, ms (logarithmic)",
        thousands(f64::from(results.shards) * SERIES_PER_SHARD as f64)
    );
    put_text(&mut svg, 8.0, 18.0, "start", &title);
    for (encoding, colour) in Encoding::ALL.into_iter().zip(COLOURS) {
        let left = LEFT + 80.0 * f64::from(encoding as u8);
        put_bar(&mut svg, left, 27.0, 10.0, colour);
        put_text(&mut svg, left + 15.0, 36.0, "start", encoding.name());
    }
    let mut decade = least;
    while decade <= most {
        let (at, ms) = (x(10_f64.powf(decade)), 10_f64.powf(decade));
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"#d8d8d8\"/>"
        );
        let label = if ms < 1.0 { format!("{ms}") } else { thousands(ms) };
        put_text(&mut svg, at, bottom + 18.0, "middle", &label);
        decade += 1.0;
    }
    for (n, (who, bars)) in rows.iter().enumerate() {
        let y = TOP + STEP * n as f64 + 6.0;
        put_text(&mut svg, LEFT - 8.0, y + BAR + 4.0, "end", who.name());
        for (m, (ms, colour)) in bars.iter().zip(COLOURS).enumerate() {
            let y = y + BAR * m as f64;
            put_bar(&mut svg, LEFT, y, x(*ms) - LEFT, colour);
            put_text(&mut svg, x(*ms) + 5.0, y + BAR - 3.0, "start", &figure(Some(*ms)));
        }
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// A page by encoding: after the same tenth changed, if that makes a difference to this server.
fn millis(results: &Results, who: Who) -> Option<[f64; 2]> {
    let of = |encoding| {
        let cost = |change| results.median(who, Task::Scrape(encoding, change), Cost::cpu_us);
        cost(Change::SameTenth).or_else(|| cost(Change::Nothing)).map(|us| us / 1e3)
    };
    // A bar of nothing has no place on a logarithmic scale.
    Some([of(Encoding::Plain)?.max(0.01), of(Encoding::Gzip)?.max(0.01)])
}

// Writing to a String cannot fail.
fn put_bar(svg: &mut String, x: f64, y: f64, width: f64, colour: &str) {
    let height = BAR - 2.0;
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>"
    );
}

fn put_text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#222222\">{text}</text>"
    );
}
