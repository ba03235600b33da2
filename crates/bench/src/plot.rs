//! Plots as SVG.

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;
use serde::Serialize;
use std::path::Path;

const SIZE: (u32, u32) = (800, 480);

/// Lines in a coordinate system.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Plot {
    /// The name of its file, without `.svg`.
    pub(crate) file: String,
    /// What it shows.
    pub(crate) title: String,
    /// What the x axis shows.
    pub(crate) x: String,
    /// What the y axis shows.
    pub(crate) y: String,
    /// Name and points of each line.
    pub(crate) lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// Draws a plot into a file.
///
/// # Errors
///
/// It has no points, or the file cannot be written.
pub(crate) fn draw(plot: &Plot, path: &Path) -> Result<()> {
    let points = || plot.lines.iter().flat_map(|(_, points)| points);
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(0.0, f64::max);
    let (right, top) = (most(|point| point.0), most(|point| point.1));
    anyhow::ensure!(right > 0.0 && top > 0.0, "{}: there is nothing to draw", plot.file);
    let text = render(plot, right * 1.05, top * 1.1).map_err(|error| anyhow!("{}: {error}", plot.file))?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn render(plot: &Plot, right: f64, top: f64) -> Result<String, Box<dyn std::error::Error>> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&plot.title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(80)
            .build_cartesian_2d(0.0..right, 0.0..top)?;
        chart.configure_mesh().x_desc(&plot.x).y_desc(&plot.y).light_line_style(WHITE).draw()?;
        for (index, (name, points)) in plot.lines.iter().enumerate() {
            let colour = Palette99::pick(index).to_rgba();
            let style = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), style))?
                .label(name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()?;
    }
    Ok(text)
}
