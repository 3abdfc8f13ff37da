//! Sends the changes, follows their results, and shows each step.

use std::{error::Error, time::Duration};

use tokio::time::{Instant, sleep};
use tonic::transport::Endpoint;

use crate::{
    cli::demo::{
        report::{ChangeReport, DemoReport},
        requests::{ChangeRequest, Client, duplicated_callbacks},
        results::{Print, Results},
    },
    proto::{Until, WatchRequestRequest, watch_request_response::Event},
    telemetry::Telemetry,
};

/// Time for the last duplicate callbacks to arrive.
const DUPLICATES_TIMEOUT: Duration = Duration::from_secs(1);
/// Interval between two readings of a metric.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A demo on one gateway.
pub(super) struct Demo<'a> {
    pub(super) target: &'a str,
    pub(super) devices: u32,
    pub(super) print: Print,
    /// Metrics of the gateway, if it runs in this process.
    pub(super) telemetry: Option<&'a Telemetry>,
}

// === impl Demo ===

impl Demo<'_> {
    pub(super) async fn run(&self) -> Result<DemoReport, Box<dyn Error>> {
        let started = Instant::now();
        let mut client = self.connect().await?;
        let mut changes = Vec::new();
        for request in ChangeRequest::all(self.devices) {
            let change = self.change(&mut client, &request).await?;
            if changes.is_empty() {
                self.retry(&mut client, &request, &change.change_id).await?;
            }
            changes.push(change);
        }
        let elapsed_ms = started.elapsed().as_millis();
        let duplicates = changes.len() as u64 * u64::from(duplicated_callbacks(self.devices));
        self.show_duplicates(duplicates).await?;
        (self.print)(&format!("All results arrived within {elapsed_ms} ms."))?;
        Ok(DemoReport { changes, elapsed_ms })
    }

    async fn connect(&self) -> Result<Client, String> {
        let connect =
            async { Endpoint::from_shared(format!("http://{}", self.target))?.connect().await };
        let channel = connect.await.map_err(|error| format!("{}: {error}", self.target))?;
        Ok(Client::new(channel))
    }

    /// Sends a change and follows its results to the end, over two connections.
    async fn change(
        &self,
        client: &mut Client,
        request: &ChangeRequest,
    ) -> Result<ChangeReport, Box<dyn Error>> {
        let (method, _) = request.names();
        let devices = self.devices;
        let change = request.send(client).await?;
        let id = &change.change_id;
        (self.print)(&format!("\n{method} with {devices} devices: change {id}"))?;
        let half = usize::try_from(devices.div_ceil(2)).unwrap_or(usize::MAX);
        let mut results = Results::default();
        self.watch(id, &mut results, half).await?;
        (self.print)(&format!(
            "The connection is cut after {} results. A new watch resumes with the last token:",
            results.count()
        ))?;
        while results.finished.is_none() {
            self.watch(id, &mut results, usize::MAX).await?;
        }
        let missing = usize::try_from(devices).unwrap_or(usize::MAX) - results.count();
        (self.print)(&format!(
            "The change is finished: {} results, {missing} missing, {} repeated.",
            results.count(),
            results.repeated
        ))?;
        let change = results.finished.unwrap_or_default();
        Ok(ChangeReport {
            change_type: change.change_type().as_str_name(),
            change_id: change.change_id,
            request_ids: change.request_ids,
            devices,
            succeeded: change.succeeded_count,
            failed: change.failed_count,
            duplicates: results.repeated,
            missing,
        })
    }

    /// Watches a change over a connection of its own, which closes after `max_results` results.
    async fn watch(
        &self,
        change_id: &str,
        results: &mut Results,
        max_results: usize,
    ) -> Result<(), Box<dyn Error>> {
        let mut client = self.connect().await?;
        let request = WatchRequestRequest {
            change_id: change_id.to_owned(),
            resume_token: results.resume_token.clone(),
            until: Until::Finished.into(),
            ..WatchRequestRequest::default()
        };
        let stream = client.watch_request(request).await?;
        let mut stream = stream.into_inner();
        while results.count() < max_results
            && let Some(message) = stream.message().await?
        {
            results.resume_token = message.resume_token;
            match message.event {
                Some(Event::DeviceResult(result)) => results.add(&result, self.print)?,
                Some(Event::Finished(finished)) => results.finished = finished.change,
                _ => {}
            }
        }
        results.end_stream(self.print)
    }

    /// Sends a change again with its idempotency key.
    async fn retry(
        &self,
        client: &mut Client,
        request: &ChangeRequest,
        change_id: &str,
    ) -> Result<(), Box<dyn Error>> {
        let (method, template) = request.names();
        let again = request.send(client).await?.change_id;
        if again != change_id {
            return Err(format!("a retry created another change: {again}").into());
        }
        (self.print)(&format!("\n{method} again with the same idempotency key: change {again}"))?;
        let requests = "http_client_request_duration_seconds_count";
        match self.metric(requests, &format!("url_template=\"{template}\""))? {
            Some(sent) => (self.print)(&format!(
                "The gateway returned the same change. Requests sent to ThingSpace: {sent}."
            )),
            None => (self.print)("The gateway returned the same change."),
        }
    }

    /// Shows the number of duplicate callbacks, once all have arrived.
    async fn show_duplicates(&self, expected: u64) -> Result<(), Box<dyn Error>> {
        let deadline = Instant::now() + DUPLICATES_TIMEOUT;
        let callbacks = "thingspace_gateway_callbacks_total";
        let label = "thingspace_gateway_outcome=\"duplicate\"";
        while let Some(received) = self.metric(callbacks, label)? {
            if received >= expected || Instant::now() >= deadline {
                return (self.print)(&format!(
                    "\nCallbacks that arrived twice: {received}. Clients received each result once."
                ));
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Sum of the metric's samples with this label, if the gateway runs in this process.
    fn metric(&self, name: &str, label: &str) -> Result<Option<u64>, String> {
        let Some(telemetry) = self.telemetry else {
            return Ok(None);
        };
        let text = telemetry.exposition()?;
        let values = text.lines().filter_map(|line| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            labels.contains(label).then(|| value.parse::<u64>().ok())?
        });
        Ok(Some(values.sum()))
    }
}
