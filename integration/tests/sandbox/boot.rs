//! A guest's start and end.

use std::time::{Duration, Instant};

use integration::sandbox::Bed;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shim_core::model::{Exit, ExitStatus};
use shim_protos::guest::{GuestClient, HelloRequest, PowerOffRequest};
use shim_sandbox::Build;
use shim_sandbox::channel::{self, Purpose};
use shim_sandbox::vm::{Booted, Vm, end, greeted};
use tokio::time::timeout;
use ttrpc::asynchronous::Client;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context;

use crate::support::{BOOT, SOON, boot, run, word};

async fn ended(vm: &dyn Vm) -> Exit {
    let ended = timeout(SOON, end(vm)).await;
    ended.unwrap_or_else(|_| panic!("the machine goes on: {}", vm.console_tail()))
}

async fn guest(bed: &Bed) -> Booted {
    let mut booted = boot(bed, &bed.config(&word())).await;
    greeted(&*booted.vm, &mut booted.line, &word(), BOOT).await.unwrap();
    booted
}

#[test]
fn each_guest_greets_tells_its_kernel_and_powers_off() {
    // SHIM_BOOTS is for those who want to know how often it fails.
    let boots = std::env::var("SHIM_BOOTS").ok().and_then(|boots| boots.parse().ok()).unwrap_or(2);
    run(async |bed| {
        let build = Build::of(&bed.qemu.ourselves).unwrap().as_str().to_owned();
        let request = HelloRequest { build, ..Default::default() };
        for n in 0..boots {
            let start = Instant::now();
            let booted = guest(bed).await;
            let greeted = start.elapsed();
            let opener = channel::host(booted.line);
            let stream = channel::open(&opener, &Purpose::Calls).await.unwrap();
            let client = GuestClient::new(Client::new(Socket::new(stream)));
            let limit = context::with_timeout(SOON.as_nanos().try_into().unwrap());
            let hello = client.hello(limit.clone(), &request).await.unwrap();
            assert_eq!(hello.kernel, bed.image.about.release);
            let called = start.elapsed();
            client.power_off(limit, &PowerOffRequest::default()).await.unwrap();
            let exit = ended(&*booted.vm).await;
            assert_eq!(exit.status, ExitStatus::Code(0), "{}", booted.vm.console_tail());
            println!("{n}: greeted {greeted:?}, called {called:?}, off {:?}", start.elapsed());
        }
    });
}

#[test]
fn a_guest_whose_line_ends_powers_off() {
    run(async |bed| {
        let Booted { vm, line } = guest(bed).await;
        drop(line);
        assert_eq!(ended(&*vm).await.status, ExitStatus::Code(0), "{}", vm.console_tail());
    });
}

#[test]
fn a_machine_that_is_killed_is_noticed_by_all_who_wait() {
    run(async |bed| {
        let booted = guest(bed).await;
        let pid = Pid::from_raw(booted.vm.pid().raw());
        kill(pid, Signal::SIGKILL).unwrap();
        let both = tokio::join!(ended(&*booted.vm), ended(&*booted.vm));
        assert_eq!(both.0.status, both.1.status);
        assert!(matches!(ended(&*booted.vm).await.status, ExitStatus::Signal(_)));
    });
}

#[test]
fn a_machine_that_will_not_end_is_ended() {
    run(async |bed| {
        let booted = guest(bed).await;
        let start = Instant::now();
        booted.vm.power_off(Duration::from_millis(50)).await;
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        // A stopped one takes no command.
        let booted = boot(bed, &bed.config(&word())).await;
        kill(Pid::from_raw(booted.vm.pid().raw()), Signal::SIGSTOP).unwrap();
        booted.vm.power_off(Duration::ZERO).await;
    });
}

#[test]
fn a_kernel_that_panics_is_told_with_its_words() {
    run(async |bed| {
        let dir = tempfile::tempdir().unwrap();
        let broken = dir.path().join("initrd");
        std::fs::write(&broken, vec![b'x'; 4096]).unwrap();
        let config = shim_sandbox::vm::VmConfig { initrd: broken, ..bed.config(&word()) };
        let mut booted = boot(bed, &config).await;
        let err = greeted(&*booted.vm, &mut booted.line, &word(), BOOT).await.unwrap_err();
        let text = format!("{err:#}");
        assert!(text.contains("Kernel panic") && text.contains("has ended"), "{text}");
    });
}

#[test]
fn a_machine_that_cannot_start_is_told_within_a_second() {
    run(async |bed| {
        let dir = tempfile::tempdir().unwrap();
        let broken = dir.path().join("kernel");
        std::fs::write(&broken, "no kernel").unwrap();
        let config = shim_sandbox::vm::VmConfig { kernel: broken, ..bed.config(&word()) };
        let mut booted = boot(bed, &config).await;
        let pid = booted.vm.pid();
        let err = greeted(&*booted.vm, &mut booted.line, &word(), BOOT).await.unwrap_err();
        let since = ended(&*booted.vm).await.at.elapsed().unwrap_or_default();
        assert!(since < Duration::from_secs(1), "{since:?}");
        assert!(format!("{err:#}").contains("kernel"), "{pid}: {err:#}");
    });
}

#[test]
fn a_guest_that_says_nothing_is_given_up_after_the_limit() {
    run(async |bed| {
        let mut booted = boot(bed, &bed.config(&word())).await;
        let limit = Duration::from_millis(50);
        let err = greeted(&*booted.vm, &mut booted.line, &word(), limit).await.unwrap_err();
        assert_eq!(err.kind(), shim_core::Kind::TimedOut, "{err:#}");
    });
}
