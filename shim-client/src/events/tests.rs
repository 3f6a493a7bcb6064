//! A client of ours publishes; the server must have it all, in order.

use shim_protos::events::TaskExit;
use shim_protos::forward::EventsClient;
use shim_protos::protobuf::{Message, MessageField};
use ttrpc::context::Context as CallContext;

use super::*;

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn request(topic: &str) -> ForwardRequest {
    let exit = TaskExit { container_id: "c".to_owned(), exit_status: 3, ..TaskExit::default() };
    let envelope = Envelope {
        namespace: "n".to_owned(),
        topic: topic.to_owned(),
        event: MessageField::some(Any {
            type_url: "containerd.events.TaskExit".to_owned(),
            value: exit.write_to_bytes().unwrap(),
            ..Any::default()
        }),
        ..Envelope::default()
    };
    ForwardRequest { envelope: MessageField::some(envelope), ..ForwardRequest::default() }
}

#[test]
fn events_are_recorded_in_order() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.sock");
        let mut server = EventServer::bind(&path).await.unwrap();
        assert!(EventServer::bind(&path).await.is_err(), "a served path is refused");

        let address = format!("unix://{}", path.display());
        let client = EventsClient::new(ttrpc::r#async::Client::connect(&address).await.unwrap());
        for topic in ["/a", "/b"] {
            client.forward(CallContext::default(), &request(topic)).await.unwrap();
        }
        let refused = client.forward(CallContext::default(), &ForwardRequest::default()).await;
        assert!(refused.is_err());

        let events = server.wait_for(Duration::from_secs(5), |all| all.len() == 2).await.unwrap();
        assert_eq!(events[0].topic, "/a");
        assert_eq!(events[1].to_json()["event"]["exit_status"], 3);
        assert!(server.wait_for(Duration::ZERO, |all| all.len() == 3).await.is_err());
        assert_eq!(server.take().await.len(), 2);
        assert!(server.received().is_empty());

        server.close().await;
        assert!(!path.exists());
    });
}

#[test]
fn a_dead_socket_is_replaced() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        EventServer::bind(&path).await.unwrap();
    });
}

#[test]
fn unknown_payloads_show_as_hex() {
    let any = Any { type_url: "x.Y".to_owned(), value: vec![1, 255], ..Any::default() };
    assert_eq!(payload::to_json(&any), json!({ "hex": "01ff" }));
}
