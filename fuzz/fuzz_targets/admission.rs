//! Any bytes as the companion's answer, and any headers in a question: a clear decision or none, and bounded messages.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use tally_core::admission::ask::{AskHead, MAX_NAME_BYTES, Verdict, question, verdict};
use tally_core::admission::{EnqueueAndWaitRequest, EnqueueAndWaitResponse, ReportRequest};
use tally_core::config::Admission;

fuzz_target!(|data: &[u8]| {
    match verdict(0, data) {
        Verdict::Refuse(refusal) => {
            assert!((400..600).contains(&refusal.status) && !refusal.unavailable);
            let answer = EnqueueAndWaitResponse::decode(data).unwrap();
            assert_eq!(answer.refusal, Some(refusal));
        }
        Verdict::Go => assert!(EnqueueAndWaitResponse::decode(data).is_ok()),
        Verdict::NoDecision => {}
    }
    assert_eq!(verdict(14, data), Verdict::NoDecision);
    // What the companion reads comes from anybody who reaches its port.
    if let Ok(asked) = EnqueueAndWaitRequest::decode(data) {
        assert_eq!(EnqueueAndWaitRequest::decode(&asked.encode_to_vec()[..]).unwrap(), asked);
    }
    let _ = ReportRequest::decode(data);

    let part = |at: usize| data.chunks(data.len().div_ceil(5).max(1)).nth(at).unwrap_or_default();
    let head = AskHead {
        fairness_id: part(0),
        objective: part(1),
        content_length: part(2),
        target_model: part(3),
        first_token: part(4),
    };
    let asked = EnqueueAndWaitRequest::decode(&question(&Admission::default(), &head, 1, 2)[..]).unwrap();
    for name in [&asked.fairness_id, &asked.objective, &asked.target_model] {
        assert!(name.len() <= MAX_NAME_BYTES);
    }
    assert_eq!((asked.reporter, asked.request), (1, 2));
});
