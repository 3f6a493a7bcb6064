//! Bytes that containerd and its shims put on the wire, against our messages.

use protobuf::{Enum, EnumOrUnknown, Message, MessageField};

use crate::bootstrap::{BootstrapParams, BootstrapResult, LogLevel};
use crate::cgroups_v2::{CPUStat, IOStat, Metrics, PSIData, PSIStats};
use crate::events::TaskExit;
use crate::forward::{Envelope, ForwardRequest};
use crate::types::{Mount, Status};
use crate::{Any, Timestamp, task, task_v2};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn bootstrap_params_of_containerd_2_3_decode() {
    let params = BootstrapParams::parse_from_bytes(&bytes(
        "0a027431120764656661756c7418fcffffffffffffffff01220676322e332e342a252f72756e2f636f6e7461
         696e6572642f636f6e7461696e6572642e736f636b2e7474727063321f2f72756e2f636f6e7461696e657264
         2f636f6e7461696e6572642e736f636b3a132f7573722f62696e2f636f6e7461696e6572644a112f72756e2f
         636f6e7461696e6572642f73",
    ))
    .unwrap();
    assert_eq!(params.instance_id, "t1");
    assert_eq!(params.namespace, "default");
    assert_eq!(params.log_level, EnumOrUnknown::new(LogLevel::LOG_LEVEL_DEBUG));
    assert_eq!(params.containerd_version, "v2.3.4");
    assert_eq!(params.containerd_ttrpc_address, "/run/containerd/containerd.sock.ttrpc");
    assert_eq!(params.containerd_grpc_address, "/run/containerd/containerd.sock");
    assert_eq!(params.containerd_binary, "/usr/bin/containerd");
    assert_eq!(params.socket_dir.as_deref(), Some("/run/containerd/s"));
    assert!(params.extensions.is_empty());
}

#[test]
fn an_unknown_log_level_survives() {
    let params = BootstrapParams::parse_from_bytes(&bytes("18fdffffffffffffffff01")).unwrap();
    assert_eq!(params.log_level.value(), -3);
    assert!(params.log_level.enum_value().is_err());
}

#[test]
fn bootstrap_result_encodes_as_containerd_2_3_reads_it() {
    let address = format!("unix:///run/containerd/s/{}", "a".repeat(64));
    let result = BootstrapResult {
        version: 3,
        address: address.clone(),
        protocol: "ttrpc".to_owned(),
        ..BootstrapResult::default()
    };
    let mut expected = bytes("08031259");
    expected.extend_from_slice(address.as_bytes());
    expected.extend(bytes("1a057474727063"));
    assert_eq!(result.write_to_bytes().unwrap(), expected);
}

#[test]
fn a_create_request_has_the_same_bytes_for_both_services() {
    let mount = Mount {
        type_: "bind".to_owned(),
        source: "/a".to_owned(),
        target: "b".to_owned(),
        options: vec!["ro".to_owned()],
        ..Mount::default()
    };
    let v3 = task::CreateTaskRequest {
        id: "c".to_owned(),
        bundle: "/b".to_owned(),
        rootfs: vec![mount.clone()],
        terminal: true,
        stdout: "/o".to_owned(),
        options: MessageField::some(Any { type_url: "x".to_owned(), ..Any::default() }),
        ..task::CreateTaskRequest::default()
    };
    let v2: task_v2::CreateTaskRequest = v3.clone();
    let expected = bytes(
        "0a0163 12022f62 1a11 0a0462696e64 12022f61 1a0162 2202726f 2001 32022f6f 5203 0a0178",
    );
    assert_eq!(v3.write_to_bytes().unwrap(), expected);
    assert_eq!(v2.write_to_bytes().unwrap(), expected);
}

#[test]
fn a_state_answer_has_its_numbers() {
    let state = task::StateResponse {
        pid: 7,
        status: EnumOrUnknown::new(Status::STOPPED),
        exit_status: 137,
        exec_id: "e".to_owned(),
        ..task::StateResponse::default()
    };
    assert_eq!(state.write_to_bytes().unwrap(), bytes("1807 2003 488901 5a0165"));
    assert_eq!(Status::PAUSING.value(), 5);
}

#[test]
fn an_event_travels_in_an_envelope() {
    let exit = TaskExit {
        container_id: "c".to_owned(),
        id: "e".to_owned(),
        pid: 9,
        exit_status: 1,
        exited_at: MessageField::some(Timestamp { seconds: 5, ..Timestamp::default() }),
        ..TaskExit::default()
    };
    let request = ForwardRequest {
        envelope: MessageField::some(Envelope {
            namespace: "n".to_owned(),
            topic: "/t".to_owned(),
            event: MessageField::some(Any {
                type_url: "T".to_owned(),
                value: exit.write_to_bytes().unwrap(),
                ..Any::default()
            }),
            ..Envelope::default()
        }),
        ..ForwardRequest::default()
    };
    assert_eq!(
        request.write_to_bytes().unwrap(),
        bytes("0a1c 12016e 1a022f74 2213 0a0154 120e 0a0163 120165 1809 2001 2a02 0805"),
    );
}

#[test]
fn v2_metrics_have_their_numbers() {
    let psi = PSIStats {
        some: MessageField::some(PSIData { total: 3, ..PSIData::default() }),
        ..PSIStats::default()
    };
    let metrics = Metrics {
        cpu: MessageField::some(CPUStat {
            usage_usec: 1,
            psi: MessageField::some(psi.clone()),
            ..CPUStat::default()
        }),
        io: MessageField::some(IOStat { psi: MessageField::some(psi), ..IOStat::default() }),
        ..Metrics::default()
    };
    assert_eq!(
        metrics.write_to_bytes().unwrap(),
        bytes("1208 0801 3a04 0a022003 3206 1204 0a022003"),
    );
}
