//! Lines in a frame, as SVG: no more than the soak's page needs.
//!
//! The colours stand out from white and from black, and there is no background: a page may be
//! light or dark.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 48.0;

/// Text, and with less of it the grid.
const GREY: &str = "#808890";
const COLOURS: [&str; 4] = ["#3b82f6", "#e07b22", "#1f9d6b", "#b45ad0"];

/// About how many steps an axis is divided into.
const STEPS: f64 = 5.0;

/// Values one after the other.
#[derive(Clone, Debug)]
pub struct Line {
    /// For the legend.
    pub name: String,
    /// Left to right.
    pub points: Vec<(f64, f64)>,
}

/// Draws lines over a common axis that starts at zero, as the other one does.
#[must_use]
pub fn svg(title: &str, below: &str, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let right = all().map(|(x, _)| x).fold(1.0, f64::max);
    let (step, top) = scale(all().map(|(_, y)| y).fold(0.0, f64::max));
    let place = |x: f64, y: f64| {
        let across = LEFT + x / right * (WIDTH - LEFT - RIGHT);
        (across, HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM))
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"{GREY}\">\n"
    );
    text(&mut svg, (LEFT, 20.0), "start", &format!("<tspan font-size=\"15\">{title}</tspan>"));
    let mut mark = 0.0;
    while mark <= top + step / 2.0 {
        let (from, height) = place(0.0, mark);
        let to = WIDTH - RIGHT;
        rule(&mut svg, (from, height), (to, height));
        text(&mut svg, (from - 8.0, height + 4.0), "end", &number(mark));
        mark += step;
    }
    let (step, _) = scale(right);
    let mut mark = 0.0;
    while mark <= right + step / 100.0 {
        let (across, base) = place(mark, 0.0);
        rule(&mut svg, (across, base), (across, base + 5.0));
        text(&mut svg, (across, base + 18.0), "middle", &number(mark));
        mark += step;
    }
    let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
    text(&mut svg, (middle, HEIGHT - 8.0), "middle", below);
    let mut legend = LEFT;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let points = line.points.iter().map(|(x, y)| place(*x, *y));
        let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" points=\"{}\"/>\n\
             <rect x=\"{legend}\" y=\"33\" width=\"14\" height=\"4\" fill=\"{colour}\"/>",
            points.join(" ")
        );
        text(&mut svg, (legend + 20.0, 40.0), "start", &line.name);
        // Letters of this size are about six and a half wide.
        legend += 44.0 + 6.5 * f64::from(u32::try_from(line.name.len()).unwrap_or(0));
    }
    svg.push_str("</svg>\n");
    svg
}

/// A round step, and the multiple of it that holds everything.
fn scale(most: f64) -> (f64, f64) {
    let rough = (most / STEPS).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|digit| digit * power);
    let step = step.into_iter().find(|step| *step >= rough).unwrap_or(power);
    (step, (most / step).ceil().max(1.0) * step)
}

fn number(value: f64) -> String {
    if value >= 10_000.0 {
        format!("{:.0} {:03.0}", (value / 1000.0).floor(), value % 1000.0)
    } else if value.fract().abs() < 1e-9 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

fn rule(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{GREY}\" \
         stroke-opacity=\"0.35\"/>",
        from.0, from.1, to.0, to.1
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!(scale(4312.0), (1000.0, 5000.0));
        assert_eq!(scale(19.0), (5.0, 20.0));
        assert_eq!(scale(0.0).1, scale(0.0).0);
        assert_eq!(number(10_000.0), "10 000");
        assert_eq!(number(2.5), "2.5");
    }

    #[test]
    fn every_line_is_drawn_and_named() {
        let line =
            |name: &str| Line { name: name.to_owned(), points: vec![(0.0, 1.0), (9.0, 3.0)] };
        let svg = svg("t", "cycles", &[line("one"), line("two")]);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains(">one</text>") && svg.contains(">two</text>"), "{svg}");
    }
}
