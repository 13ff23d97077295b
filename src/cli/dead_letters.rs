//! `shop dead-letters`: what could not be processed, and what to do with it.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{print::print_line, verify::table};
use crate::{
    app::unusable,
    config::Config,
    queue::{self, DeadLetter, Queue},
};

/// The most of a body that a table shows, in characters.
const SHOWN: usize = 80;

#[derive(Debug, Args)]
pub(super) struct DeadLetters {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show them, oldest first, with reason, age and body. What `dead-letters` does when nothing is said.
    #[command(after_help = "Example:\n  shop dead-letters list --json")]
    List(List),
    /// Send them to the workers again. What still cannot be processed comes back. Safe to repeat: an order is
    /// settled once.
    #[command(after_help = "Example:\n  shop dead-letters replay")]
    Replay,
    /// Drop them all.
    #[command(after_help = "Example:\n  shop dead-letters purge")]
    Purge,
}

#[derive(Debug, Args)]
struct List {
    /// How many to show, 1 to 10,000.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// As JSON, with the whole bodies.
    #[arg(long)]
    json: bool,
}

impl DeadLetters {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<()> {
        let queue =
            Queue::new(&config.queue_url, &config.queue_prefix, 1).map_err(|error| unusable("queue_url", &error))?;
        if queue.is_memory() {
            eprintln!("shop: the queue is memory:, which keeps no dead letters");
        }
        let done = self.act(&queue).await.context(
            "the dead letters could not be reached: is RabbitMQ up at the `queue_url` (SHOP_QUEUE_URL), and may \
             its user declare, read and write?",
        );
        queue.close().await;
        done
    }

    async fn act(self, queue: &Queue) -> anyhow::Result<()> {
        let list = List {
            limit: 100,
            json: false,
        };
        match self.action.unwrap_or(Action::List(list)) {
            Action::List(list) => {
                let found = queue.dead_letters(list.limit as usize).await?;
                list.print(&found)
            }
            Action::Replay => {
                let sent = queue.replay_dead_letters().await?;
                print_line(format_args!("sent {sent} again"))
            }
            Action::Purge => {
                let dropped = queue.purge_dead_letters().await?;
                print_line(format_args!("dropped {dropped}"))
            }
        }
    }
}

impl List {
    fn print(&self, found: &queue::DeadLetters) -> anyhow::Result<()> {
        let now = OffsetDateTime::now_utc();
        let seconds = |letter: &DeadLetter| letter.since.map(|since| (now - since).whole_seconds().max(0));
        if self.json {
            let letters = found.oldest.iter().map(|letter| {
                json!({
                    "reason": letter.reason,
                    "since": letter.since.and_then(|since| since.format(&Rfc3339).ok()),
                    "age_seconds": seconds(letter),
                    "body": String::from_utf8_lossy(&letter.body),
                })
            });
            print_line(serde_json::to_string_pretty(&letters.collect::<Vec<_>>())?)?;
        } else if !found.oldest.is_empty() {
            let mut table = table(&["age", "reason", "body"]);
            for letter in &found.oldest {
                let age = seconds(letter).map_or_else(|| "unknown".to_owned(), age);
                table.add_row([age, excerpt(letter.reason.as_bytes()), excerpt(&letter.body)]);
            }
            print_line(table)?;
        }
        if found.total > found.oldest.len() {
            eprintln!(
                "shop: the oldest {} of {}; --limit shows more",
                found.oldest.len(),
                found.total
            );
        }
        Ok(())
    }
}

fn age(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// One line of printable text, whatever somebody sent.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let printable = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };
    let mut shown: String = text.chars().take(SHOWN).map(printable).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_shown_on_one_short_line() {
        assert_eq!(excerpt(b"{}\n\x1b[2J"), "{}\u{fffd}\u{fffd}[2J");
        assert_eq!(excerpt(&[b'a'; 200]).chars().count(), SHOWN + 1);
        assert_eq!([age(59), age(61), age(7_300), age(200_000)], ["59s", "1m", "2h", "2d"]);
    }
}
