//! Flame graphs: where time goes, as stacks of calls, the widest taking longest.

use std::{collections::BTreeMap, fmt::Write};

use crate::frame::escaped;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 15.0;
/// Narrower boxes are left out: nobody could see them.
const NARROWEST: f64 = 0.8;
/// What a letter takes, about.
const LETTER: f64 = 5.6;

/// A call, and those that it made.
#[derive(Debug, Default)]
struct Call<'a> {
    weight: u64,
    calls: BTreeMap<&'a str, Self>,
}

/// A flame graph of stacks, outermost call first, each with its weight.
///
/// A box stands on its caller; a pointer on it shows its whole name and its share. Boxes beside each
/// other are in the order of their names, not of time.
#[must_use]
pub fn flame(title: &str, stacks: &[(Vec<String>, u64)]) -> String {
    let mut all = Call::default();
    for (stack, weight) in stacks {
        all.add(stack, *weight);
    }
    let depth = all.depth(1.0 / WIDTH * NARROWEST * as_f64(all.weight));
    let height = HEIGHT * (as_f64(depth as u64) + 1.5);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"10\">\n\
         <text x=\"4\" y=\"12\" font-size=\"12\" fill=\"#808080\">{}</text>\n",
        escaped(title)
    );
    let scale = WIDTH / as_f64(all.weight.max(1));
    let total = all.weight;
    all.draw(&mut svg, &Place { left: 0.0, bottom: height, scale, total });
    svg.push_str("</svg>\n");
    svg
}

/// Where the calls of one are drawn.
struct Place {
    left: f64,
    bottom: f64,
    /// The width of a weight of one.
    scale: f64,
    total: u64,
}

impl<'a> Call<'a> {
    fn add(&mut self, stack: &'a [String], weight: u64) {
        self.weight += weight;
        if let Some((first, rest)) = stack.split_first() {
            self.calls.entry(first).or_default().add(rest, weight);
        }
    }

    /// How many boxes stand on each other, of those that are heavy enough.
    fn depth(&self, least: f64) -> usize {
        let heavy = self.calls.values().filter(|call| as_f64(call.weight) >= least);
        heavy.map(|call| 1 + call.depth(least)).max().unwrap_or(0)
    }

    fn draw(&self, svg: &mut String, place: &Place) {
        let Place { mut left, bottom, scale, total } = *place;
        for (name, call) in &self.calls {
            let width = as_f64(call.weight) * scale;
            if width >= NARROWEST {
                call.draw_box(svg, name, width, &Place { left, bottom, scale, total });
                call.draw(svg, &Place { left, bottom: bottom - HEIGHT, scale, total });
            }
            left += width;
        }
    }

    fn draw_box(&self, svg: &mut String, name: &str, width: f64, place: &Place) {
        let (left, top) = (place.left, place.bottom - HEIGHT);
        let share = 100.0 * as_f64(self.weight) / as_f64(place.total.max(1));
        let whole = escaped(name);
        let room = width / LETTER - 1.0;
        let shown: String = name
            .chars()
            .enumerate()
            .take_while(|(at, _)| as_f64(*at as u64) < room)
            .map(|(_, c)| c)
            .collect();
        let shown = if room < 3.0 { String::new() } else { escaped(&shown) };
        // Kernel calls are told from ours by their colour.
        let colour = if name.ends_with("_[k]") { "#e8a33d" } else { "#d9603b" };
        writeln!(
            svg,
            "<g><title>{whole}: {share:.1} %</title><rect x=\"{left:.1}\" y=\"{top:.1}\" \
             width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\">\
             {shown}</text></g>",
            (width - 0.4).max(0.3),
            HEIGHT - 1.0,
            left + 2.0,
            top + 10.5,
        )
        .expect("a string takes all");
    }
}

#[expect(clippy::cast_precision_loss, reason = "a picture needs no more")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(names: &[&str], weight: u64) -> (Vec<String>, u64) {
        (names.iter().map(|name| (*name).to_owned()).collect(), weight)
    }

    #[test]
    fn a_box_is_as_wide_as_its_share() {
        let stacks = [stack(&["a", "b"], 3), stack(&["a", "c<d>"], 1), stack(&["a"], 4)];
        let svg = flame("t & u", &stacks);
        assert!(svg.contains("t &amp; u"), "{svg}");
        assert!(svg.contains("<title>a: 100.0 %</title>"), "{svg}");
        assert!(svg.contains("<title>b: 37.5 %</title>"), "{svg}");
        assert!(svg.contains("<title>c&lt;d&gt;: 12.5 %</title>"), "{svg}");
        assert!(svg.contains("x=\"375.0\""), "c begins where b ends: {svg}");
    }

    #[test]
    fn what_nobody_could_see_is_left_out() {
        let svg = flame("", &[stack(&["a"], 10_000), stack(&["b", "c"], 1)]);
        assert!(svg.contains(">a:") && !svg.contains(">b:"), "{svg}");
        assert!(flame("", &[]).ends_with("</svg>\n"));
    }
}
