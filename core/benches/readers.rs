//! The readers against memchr and serde_json on the same bytes: only the ratios within one run mean something.
//!
//! `make bench-readers`, or this part alone: `cargo bench --package tally-core --bench readers`
#![allow(missing_docs)]

mod cases;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn readers(criterion: &mut Criterion) {
    for case in cases::cases() {
        let mut group = criterion.benchmark_group(case.name);
        group.throughput(Throughput::Bytes(case.bytes() as u64));
        for (name, way) in cases::WAYS {
            group.bench_function(name, |bencher| bencher.iter(|| case.read(way)));
        }
        group.finish();
    }
}

criterion_group!(benches, readers);
criterion_main!(benches);
