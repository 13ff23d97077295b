//! `shop dead-letters`: lists, replays or purges the messages that could not be processed.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    confirm::Confirmation,
    output::{print_line, table},
};
use crate::{
    config::Config,
    queue::{self, DeadLetter, Queue},
};

/// The most of a body that the table shows, in characters.
const MAX_EXCERPT: usize = 80;

#[derive(Debug, Args)]
pub(super) struct DeadLetters {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List them with id, age, order, reason and body, oldest first. The default.
    #[command(after_help = "Example:\n  shop dead-letters list --json")]
    List(List),
    /// Send them to the workers again. Those that still cannot be processed come back. Safe to repeat: an order is
    /// settled once.
    #[command(after_help = "Example:\n  shop dead-letters replay")]
    Replay(Replay),
    /// Drop them all. Wants --yes, or the queue's name typed.
    #[command(after_help = "Example:\n  shop dead-letters purge --yes")]
    Purge(Confirmation),
}

#[derive(Debug, Args)]
struct List {
    /// How many to list, 1 to 10,000.
    #[arg(long, value_name = "N", default_value_t = List::DEFAULT.limit, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// As JSON, with whole bodies.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Replay {
    /// Only these, by the ids that `list` shows. Without any, all of them.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
}

impl DeadLetters {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<()> {
        let queue = Queue::new(&config.queue.url, &config.queue.prefix, 1)
            .map_err(|error| config.unusable("queue_url", error))?;
        if queue.is_memory() {
            eprintln!("shop: the queue is memory:, which keeps no dead letters");
        }

        let outcome = self.act(&queue, config).await;
        queue.close().await;
        outcome
    }

    async fn act(self, queue: &Queue, config: &Config) -> anyhow::Result<()> {
        let unreachable = "the dead letters are unreachable: RabbitMQ must be up at the `queue_url` (SHOP_QUEUE_URL), and its \
                           user must be allowed to configure, read and write";

        match self.action.unwrap_or(Action::List(List::DEFAULT)) {
            Action::List(list) => {
                let found = queue.dead_letters(list.limit as usize).await.context(unreachable)?;
                list.print(&found)
            }
            Action::Replay(replay) => {
                let wanted = (!replay.ids.is_empty()).then_some(replay.ids.as_slice());
                let sent = queue.replay_dead_letters(wanted).await.context(unreachable)?;
                print_line(format_args!("sent {} again", sent.len()))?;
                replay.check_all_sent(&sent)
            }
            Action::Purge(confirmation) => {
                // Only counted: one that cannot be read must not keep them from being purged.
                let found = queue.dead_letters(0).await.context(unreachable)?;
                if found.total > 0 {
                    let loss = format!("this drops {} dead letters for good", found.total);
                    confirmation
                        .ask(&loss, &format!("{}.orders.dead", config.queue.prefix))
                        .await?;
                }
                let dropped = queue.purge_dead_letters().await.context(unreachable)?;
                print_line(format_args!("dropped {dropped}"))
            }
        }
    }
}

impl Replay {
    fn check_all_sent(&self, sent: &[String]) -> anyhow::Result<()> {
        let missing: Vec<&str> = self
            .ids
            .iter()
            .filter(|id| !sent.contains(id))
            .map(String::as_str)
            .collect();
        anyhow::ensure!(missing.is_empty(), "there is no dead letter {}", missing.join(", "));
        Ok(())
    }
}

impl List {
    /// What `shop dead-letters` does without an action.
    const DEFAULT: Self = Self {
        limit: 100,
        json: false,
    };

    fn print(&self, found: &queue::DeadLetters) -> anyhow::Result<()> {
        let now = OffsetDateTime::now_utc();

        if self.json {
            let letters: Vec<Value> = found.oldest.iter().map(|letter| to_json(letter, now)).collect();
            print_line(serde_json::to_string_pretty(&letters)?)?;
        } else if found.oldest.is_empty() {
            print_line("there are no dead letters")?;
        } else {
            let mut table = table(&["id", "age", "order", "reason", "body"]);
            for letter in &found.oldest {
                let age = age_seconds(letter, now).map_or_else(|| "unknown".to_owned(), format_age);
                let order = letter.order_id.map(|id| id.to_string()).unwrap_or_default();
                let (reason, body) = (excerpt(letter.reason.as_bytes()), excerpt(&letter.body));
                table.add_row([excerpt(letter.id.as_bytes()), age, order, reason, body]);
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

fn to_json(letter: &DeadLetter, now: OffsetDateTime) -> Value {
    json!({
        "id": letter.id,
        "order_id": letter.order_id,
        "reason": letter.reason,
        "since": letter.since.and_then(|since| since.format(&Rfc3339).ok()),
        "age_seconds": age_seconds(letter, now),
        "body": String::from_utf8_lossy(&letter.body),
    })
}

fn age_seconds(letter: &DeadLetter, now: OffsetDateTime) -> Option<i64> {
    letter.since.map(|since| (now - since).whole_seconds().max(0))
}

fn format_age(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The beginning of `body` as one line of printable text. A body may hold anything, control sequences of the terminal
/// included.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let printable = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };

    let mut excerpt: String = text.chars().take(MAX_EXCERPT).map(printable).collect();
    if text.chars().nth(MAX_EXCERPT).is_some() {
        excerpt.push('…');
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_shown_on_one_short_line() {
        assert_eq!(excerpt(b"{}\n\x1b[2J"), "{}\u{fffd}\u{fffd}[2J");
        assert_eq!(excerpt(&[b'a'; 200]).chars().count(), MAX_EXCERPT + 1);
        assert_eq!(
            [format_age(59), format_age(61), format_age(7_300), format_age(200_000)],
            ["59s", "1m", "2h", "2d"]
        );
    }
}
