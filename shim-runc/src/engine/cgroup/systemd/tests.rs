//! The conversation with systemd, with a peer that says what a test wants.

use std::{future::Future, time::Duration};

use shim_core::Kind;

use super::{
    bus::{
        Peer,
        fake::{Fake, Say},
    },
    properties::number,
    unit::Owner,
    *,
};

const JOB: &str = "/org/freedesktop/systemd1/job/7";

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn unit() -> Unit {
    Unit::of(Some("a.slice:p:x"), "x", Owner::System).unwrap()
}

fn at(fake: &Fake) -> Systemd {
    let addresses = vec![fake.address(Peer::Systemd)];
    Systemd { addresses, limit: Duration::from_secs(20) }
}

/// The answer to a method that begins a job.
fn job() -> Say {
    Say::Return(vec![Value::Path(JOB.to_owned())])
}

fn exists() -> Say {
    Say::Refuse("org.freedesktop.systemd1.UnitExists", "Unit p-x.scope was already loaded.")
}

#[test]
fn a_unit_is_started_and_its_job_awaited() {
    block_on(async {
        let fake =
            Fake::new(|_, _| vec![Say::Ended("/other", "failed"), job(), Say::Ended(JOB, "done")]);
        at(&fake).start(&unit(), &[number("CPUWeight", 7)]).await.unwrap();
        let calls = fake.calls();
        assert_eq!((calls.len(), calls[0].member.as_str()), (1, "StartTransientUnit"));
        assert_eq!(calls[0].destination, None);
        let text = |text: &str| Value::Text(text.to_owned());
        let pair =
            Value::Tuple(vec![text("CPUWeight"), Value::Variant(Box::new(Value::Uint64(7)))]);
        assert_eq!(
            calls[0].body,
            [
                text("p-x.scope"),
                text("replace"),
                Value::Array("(sv)".to_owned(), vec![pair]),
                Value::Array("(sa(sv))".to_owned(), vec![]),
            ]
        );
    });
}

#[test]
fn a_job_that_ends_before_its_answer_is_known() {
    block_on(async {
        let fake = Fake::new(|_, _| vec![Say::Ended(JOB, "done"), job()]);
        at(&fake).start(&unit(), &[]).await.unwrap();
    });
}

#[test]
fn on_a_bus_systemd_is_one_of_many() {
    block_on(async {
        let fake = Fake::new(|member, _| match member {
            "StartTransientUnit" => vec![job(), Say::Ended(JOB, "done")],
            _ => vec![Say::Return(vec![Value::Text(":1.7".to_owned())])],
        });
        let addresses = vec![fake.address(Peer::Bus)];
        let systemd = Systemd { addresses, ..at(&fake) };
        systemd.start(&unit(), &[]).await.unwrap();
        assert_eq!(fake.called(), "Hello AddMatch Subscribe StartTransientUnit");
        let destinations: Vec<_> =
            fake.calls().into_iter().map(|call| call.destination.unwrap()).collect();
        assert!(destinations[..2].iter().all(|to| to == "org.freedesktop.DBus"));
        assert!(destinations[2..].iter().all(|to| to == "org.freedesktop.systemd1"));
    });
}

#[test]
fn a_unit_that_has_failed_is_reset_and_started_again() {
    block_on(async {
        let fake = Fake::new(|member, before| match (member, before) {
            ("StartTransientUnit", 0) => vec![exists()],
            ("StartTransientUnit", _) => vec![job(), Say::Ended(JOB, "done")],
            _ => vec![Say::Return(vec![])],
        });
        at(&fake).start(&unit(), &[]).await.unwrap();
        assert_eq!(fake.called(), "StartTransientUnit ResetFailedUnit StartTransientUnit");
    });
}

#[test]
fn a_unit_that_is_there_is_somebody_elses() {
    block_on(async {
        let fake = Fake::new(|_, _| vec![exists()]);
        let err = at(&fake).start(&unit(), &[]).await.unwrap_err();
        assert_eq!(err.kind(), Kind::FailedPrecondition);
        let told = format!("{err:#}");
        assert!(told.starts_with("start unit p-x.scope: Unit p-x.scope was already"), "{told}");
        assert_eq!(fake.called(), "StartTransientUnit ResetFailedUnit StartTransientUnit");
    });
}

#[test]
fn a_job_that_fails_is_told_with_its_unit_and_result() {
    block_on(async {
        let fake = Fake::new(|member, _| match member {
            "StartTransientUnit" => vec![job(), Say::Ended(JOB, "dependency")],
            _ => vec![Say::Return(vec![])],
        });
        let err = at(&fake).start(&unit(), &[]).await.unwrap_err();
        assert_eq!(format!("{err:#}"), "start unit p-x.scope: its job ended with \"dependency\"");
        assert_eq!(fake.called(), "StartTransientUnit ResetFailedUnit");
    });
}

#[test]
fn what_systemd_refuses_is_told_in_its_words() {
    block_on(async {
        let refusal = "org.freedesktop.DBus.Error.PropertyReadOnly";
        let fake = Fake::new(move |_, _| vec![Say::Refuse(refusal, "Cannot set property X")]);
        let err = at(&fake).set(&unit(), &[number("X", 1)]).await.unwrap_err();
        assert_eq!(
            format!("{err:#}"),
            format!("set properties of unit p-x.scope: Cannot set property X ({refusal})")
        );
    });
}

#[test]
fn a_systemd_that_says_nothing_is_not_awaited_for_ever() {
    block_on(async {
        for says in [vec![], vec![job()]] {
            let fake = Fake::new(move |_, _| says.clone());
            let systemd = Systemd { limit: Duration::from_millis(50), ..at(&fake) };
            let err = systemd.start(&unit(), &[]).await.unwrap_err();
            assert_eq!(err.kind(), Kind::TimedOut);
            let told = format!("{err:#}");
            assert_eq!(told, "start unit p-x.scope: systemd was not done within 0.05 s");
        }
    });
}

#[test]
fn a_connection_that_breaks_is_told() {
    block_on(async {
        let fake = Fake::new(|_, _| vec![job(), Say::HangUp]);
        let err = at(&fake).start(&unit(), &[]).await.unwrap_err();
        assert_eq!(err.kind(), Kind::Unavailable);
        let fake = Fake::new(|_, _| vec![Say::Bytes(b"HTTP/1.1 400 Bad Request\r\n")]);
        let err = at(&fake).start(&unit(), &[]).await.unwrap_err();
        assert!(format!("{err:#}").contains("makes no sense"), "{err:#}");
    });
}

#[test]
fn without_systemd_every_address_is_named() {
    block_on(async {
        let address = |path: &str, peer| Address { path: path.into(), peer };
        let addresses = vec![address("/no/1", Peer::Systemd), address("/no/2", Peer::Bus)];
        let systemd = Systemd { addresses, limit: LIMIT };
        let err = systemd.start(&unit(), &[]).await.unwrap_err();
        assert_eq!(err.kind(), Kind::Unavailable);
        let told = format!("{err:#}");
        assert!(told.starts_with("start unit p-x.scope: connect to systemd: /no/1: "), "{told}");
        assert!(told.contains("; /no/2: "), "{told}");
        let fake = Fake::greeting("REJECTED EXTERNAL\r\n", |_, _| vec![]);
        let err = at(&fake).start(&unit(), &[]).await.unwrap_err();
        assert!(format!("{err:#}").contains("authenticate: answered \"REJECTED"), "{err:#}");
    });
}

#[test]
fn properties_that_this_systemd_lacks_are_left_to_the_files() {
    block_on(async {
        let fake = Fake::new(|member, _| match member {
            "Get" => {
                let version = Value::Text("252.39-1~deb12u1".to_owned());
                vec![Say::Return(vec![Value::Variant(Box::new(version))])]
            }
            _ => vec![Say::Return(vec![])],
        });
        let all = [number("A", 1).since(252), number("B", 2).since(253)];
        at(&fake).set(&unit(), &all).await.unwrap();
        assert_eq!(fake.called(), "Get SetUnitProperties");
        assert_eq!(fake.calls()[1].body[2], pairs(&all[..1]));
        assert_eq!((version("v255"), version("257~rc1"), version("x")), (255, 257, 0));
    });
}

#[test]
fn a_unit_is_stopped_and_forgotten() {
    block_on(async {
        let fake = Fake::new(|member, _| match member {
            "StopUnit" => vec![job(), Say::Ended(JOB, "done")],
            _ => vec![Say::Refuse("org.freedesktop.systemd1.NoSuchUnit", "")],
        });
        at(&fake).stop(&unit()).await.unwrap();
        assert_eq!(fake.called(), "StopUnit ResetFailedUnit");
        let refusal = Say::Refuse("org.freedesktop.systemd1.NoSuchUnit", "not loaded");
        let fake = Fake::new(move |_, _| vec![refusal.clone()]);
        at(&fake).stop(&unit()).await.unwrap();
        assert_eq!(fake.called(), "StopUnit");
    });
}
