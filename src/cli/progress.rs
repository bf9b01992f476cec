//! A bar or a spinner on standard error while a statement runs; nothing off a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::target::ProgressReceiver;
use super::terminal::Screen;

/// Statements that are faster than this show nothing.
const PATIENCE: Duration = Duration::from_millis(400);

/// How often the display is refreshed.
const TICK: Duration = Duration::from_millis(100);

/// Shows how far a statement is.
pub(super) struct Meter {
    bar: ProgressBar,
    receiver: Option<ProgressReceiver>,
    started: Instant,
    phase: String,
    shown: bool,
}

impl Meter {
    /// A meter for the statement that starts now; silent unless standard error is a terminal.
    pub(super) fn new(screen: &Screen, receiver: Option<ProgressReceiver>, quiet: bool) -> Self {
        let visible = screen.error && !quiet;
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Self {
            bar,
            receiver: receiver.filter(|_| visible),
            started: Instant::now(),
            phase: String::new(),
            shown: !visible,
        }
    }

    /// Waits for `work`, keeping the display fresh.
    pub(super) async fn watch<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut ticks = tokio::time::interval(TICK);
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result,
                _ = ticks.tick() => self.refresh(),
            }
        }
    }

    /// Removes the display.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn refresh(&mut self) {
        if !self.shown && self.started.elapsed() >= PATIENCE {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.set_style(style("{spinner} {elapsed}"));
        }
        let progress = self.receiver.as_ref().and_then(|receiver| receiver.borrow().clone());
        if let Some(progress) = progress {
            if self.phase != progress.phase {
                self.phase.clone_from(&progress.phase);
                self.bar.set_style(style(match progress.total {
                    0 => "{spinner} {prefix} {pos} {msg} {elapsed}",
                    _ => "{spinner} {prefix} {bar:30} {pos}/{len} {msg} {elapsed}",
                }));
            }
            self.bar.set_length(progress.total);
            self.bar.set_position(progress.done);
            self.bar.set_prefix(progress.phase);
            let metric = progress.metric.map(|metric| format!("({metric:.4})"));
            self.bar.set_message(metric.unwrap_or_default());
        }
        self.bar.tick();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates above are constants that parse.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn off_a_terminal_the_work_is_done_in_silence() {
        let (_sender, receiver) = tokio::sync::watch::channel(None);
        let mut meter = Meter::new(&Screen::none(), Some(receiver), false);
        assert_eq!(meter.watch(async { 7 }).await, 7);
        assert!(meter.receiver.is_none() && meter.bar.is_hidden());
        meter.clear();
    }

    #[test]
    fn the_templates_parse() {
        for template in [
            "{spinner} {elapsed}",
            "{spinner} {prefix} {pos} {msg} {elapsed}",
            "{spinner} {prefix} {bar:30} {pos}/{len} {msg} {elapsed}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
