//! A measured client on the official Rust SDK: reads, writes and calls as `child.py` does, and says the same lines.

use std::io::{BufRead, Read, Write};
use std::sync::Arc;

use iii_sdk::channel::{ChannelReader, ChannelWriter, StreamChannelRef};
use iii_sdk::protocol::TriggerRequest;
use iii_sdk::{register_worker, InitOptions};
use serde_json::{json, Value};

const CALLS_TO_WARM_UP: usize = 30;

fn monotonic() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn processor_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn say(message: Value) {
    println!("{message}");
    std::io::stdout().flush().unwrap();
}

/// Says that all is ready and waits for the start; returns its time, and the processor time so far.
fn ready_and_go() -> (f64, f64) {
    say(json!({"ready": true}));
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line).unwrap() == 0 {
        std::process::exit(1);
    }
    (monotonic(), processor_time())
}

fn crc32(mut crc: u32, data: &[u8]) -> u32 {
    crc = !crc;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// The same pieces as `loops.pieces_of`.
fn pieces(size: usize) -> Vec<Vec<u8>> {
    let count = (1024 * 1024 / size).clamp(1, 64);
    (0..count).map(|number| (0..size).map(|i| (i * 31 + (i >> 8) + number) as u8).collect()).collect()
}

async fn write(task: &Value, url: &str, end: &StreamChannelRef) {
    let pieces = pieces(task["piece"].as_u64().unwrap() as usize);
    let writer = ChannelWriter::new(url, end);
    writer.write(&pieces[0]).await.unwrap();
    let (start, cpu) = ready_and_go();
    let (mut rounds, end) = (0usize, start + task["seconds"].as_f64().unwrap());
    while monotonic() < end {
        for piece in &pieces {
            writer.write(piece).await.unwrap();
        }
        rounds += 1;
    }
    writer.close().await.unwrap();
    let cpu = processor_time() - cpu;
    let mut crc = crc32(0, &pieces[0]);
    if task["check"] == true {
        for _ in 0..rounds {
            crc = pieces.iter().fold(crc, |crc, piece| crc32(crc, piece));
        }
    }
    let messages = rounds * pieces.len();
    say(json!({"done": true, "start": start, "bytes": messages * pieces[0].len(), "messages": messages, "cpu": cpu, "crc": crc}));
}

async fn read(task: &Value, url: &str, end: &StreamChannelRef) {
    let reader = ChannelReader::new(url, end);
    let first = reader.next_binary().await.unwrap().unwrap();
    let check = task["check"] == true;
    let mut crc = if check { crc32(0, &first) } else { 0 };
    let (start, cpu) = ready_and_go();
    let (mut total, mut last) = (0, start);
    while let Some(chunk) = reader.next_binary().await.unwrap() {
        total += chunk.len();
        last = monotonic();
        if check {
            crc = crc32(crc, &chunk);
        }
    }
    let cpu = processor_time() - cpu;
    say(json!({"done": true, "start": start, "end": last, "bytes": total, "primed": first.len(), "cpu": cpu, "crc": crc}));
}

async fn call(task: &Value, url: &str) {
    let worker = Arc::new(register_worker(url, InitOptions::default()));
    let function = task["function"].as_str().unwrap().to_string();
    let payload = json!({"text": "0123456789".repeat(4), "number": 12345, "list": [1, 2, 3]});
    let once = move || {
        let (worker, request) = (worker.clone(), TriggerRequest::new(function.clone(), payload.clone()));
        async move { worker.trigger(request).await.unwrap() }
    };
    for _ in 0..CALLS_TO_WARM_UP {
        once().await;
    }
    let (start, cpu) = ready_and_go();
    let end = start + task["seconds"].as_f64().unwrap();
    let callers: Vec<_> = (0..task["callers"].as_u64().unwrap())
        .map(|_| {
            let once = once.clone();
            tokio::spawn(async move {
                let (mut taken, mut before) = (Vec::new(), monotonic());
                while before < end {
                    once().await;
                    let after = monotonic();
                    taken.push(after - before);
                    before = after;
                }
                taken
            })
        })
        .collect();
    let mut taken = Vec::new();
    for caller in callers {
        taken.extend(caller.await.unwrap());
    }
    let (finish, cpu) = (monotonic(), processor_time() - cpu);
    taken.sort_by(f64::total_cmp);
    say(json!({"done": true, "start": start, "end": finish, "calls": taken.len(), "p50": taken[taken.len() / 2], "cpu": cpu}));
}

#[tokio::main]
async fn main() {
    let task: Value = serde_json::from_str(&std::env::args().nth(1).unwrap()).unwrap();
    let url = task["url"].as_str().unwrap();
    let ends: Vec<StreamChannelRef> = serde_json::from_value(task["refs"].clone()).unwrap();
    match task["what"].as_str().unwrap() {
        "write" => write(&task, url, &ends[0]).await,
        "read" => read(&task, url, &ends[0]).await,
        "call" => call(&task, url).await,
        other => panic!("a task of the kind {other}"),
    }
    // The engine must have read everything before the sockets go.
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).unwrap();
    std::process::exit(0);
}
