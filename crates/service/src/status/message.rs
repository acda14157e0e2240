//! Reports as messages of the contract, in Protobuf and JSON.

use proto::v1;

use super::{Event, Process, Report};

impl proto::Message for Report {
    type Protobuf = v1::Report;

    const NAME: &'static str = "report";

    fn to_protobuf(&self) -> v1::Report {
        let Process { id, version, started_micros, address } = self.process.clone();
        let address = address.map(|address| address.to_string());
        let services = self.services.iter();
        let events = |events: &[Event]| events.iter().cloned().map(Into::into).collect();
        v1::Report {
            process: Some(v1::Process { id, version, started_micros, address }),
            at_micros: self.at_micros,
            services: services
                .map(|(name, reason)| (name.clone(), v1::Readiness { reason: reason.clone() }))
                .collect(),
            metrics: self.metrics.clone(),
            events: events(&self.events),
            dead_letters: events(&self.dead_letters),
        }
    }
}

impl TryFrom<v1::Report> for Report {
    type Error = String;

    fn try_from(report: v1::Report) -> Result<Self, String> {
        let v1::Process { id, version, started_micros, address } =
            report.process.ok_or("the report has no process")?;
        let parse =
            |address: String| address.parse().map_err(|error| format!("the address {address:?}: {error}"));
        let address = address.map(parse).transpose()?;
        Ok(Report {
            process: Process { id, version, started_micros, address },
            at_micros: report.at_micros,
            services: report.services.into_iter().map(|(name, ready)| (name, ready.reason)).collect(),
            metrics: report.metrics,
            events: report.events.into_iter().map(Into::into).collect(),
            dead_letters: report.dead_letters.into_iter().map(Into::into).collect(),
        })
    }
}

impl From<Event> for v1::Event {
    fn from(event: Event) -> Self {
        let Event { at_micros, level, target, message, fields } = event;
        v1::Event { at_micros, level, target, message, fields }
    }
}

impl From<v1::Event> for Event {
    fn from(event: v1::Event) -> Self {
        let v1::Event { at_micros, level, target, message, fields } = event;
        Event { at_micros, level, target, message, fields }
    }
}

#[cfg(test)]
mod tests {
    use proto::{Encoding, Message as _};

    use super::{Event, Process, Report};

    #[test]
    fn both_encodings_of_a_report_say_the_same() {
        let event = Event {
            at_micros: 7,
            level: "WARN".to_owned(),
            target: "ingest".to_owned(),
            message: "paused".to_owned(),
            fields: [("partition".to_owned(), "3".to_owned())].into(),
        };
        let process = Process {
            id: "ingest@host:4711".to_owned(),
            version: "0.1.0".to_owned(),
            started_micros: 5,
            address: Some(([127, 0, 0, 1], 9464).into()),
        };
        let report = Report {
            process,
            at_micros: 9,
            services: [("ingest".to_owned(), None), ("gold".to_owned(), Some("waits".to_owned()))].into(),
            metrics: "a 1\n".to_owned(),
            events: vec![event.clone()],
            dead_letters: vec![event],
        };
        for report in [report, Report::default()] {
            for encoding in [Encoding::Json, Encoding::Protobuf] {
                let bytes = report.encode(encoding);
                assert_eq!(Encoding::of(&bytes), encoding);
                assert_eq!(Report::decode(&bytes).unwrap(), report);
            }
        }
        let error = Report::decode(b"\x0a\x07\x22\x05there").unwrap_err().to_string();
        assert!(error.contains("the address \"there\""), "{error}");
    }
}
