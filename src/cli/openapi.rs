//! `shop openapi`: prints the documents that describe the API and the messages. It needs no configuration and no
//! server.

use clap::Args;

use super::output::print_line;
use crate::{api, queue::asyncapi};

#[derive(Debug, Args)]
pub(super) struct Openapi {
    /// As YAML instead of JSON.
    #[arg(long)]
    yaml: bool,
    /// The AsyncAPI document of the messages instead of the OpenAPI document.
    #[arg(long = "async")]
    messages: bool,
}

impl Openapi {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let document = if self.messages {
            asyncapi::document()?
        } else {
            api::openapi_document()
        };

        if self.yaml {
            print_line(api::openapi::to_yaml(&document).trim_end())
        } else {
            print_line(serde_json::to_string_pretty(&document)?)
        }
    }
}
