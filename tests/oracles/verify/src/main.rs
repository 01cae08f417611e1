//! Says of attestation documents whether the crate aws-nitro-enclaves-attestation accepts them.
//!
//! stdin: the number of roots (u32, as every number here big-endian), then each root's length and
//! DER; then batches: the number of documents, then for each its root's index (u32), the time in
//! seconds since 1970 (u64), its length and its bytes. stdout: a line for each document, `accepted`,
//! or `refused` or `panicked` with the reason. It ends with stdin.

use std::io::{self, Read, Write};
use std::panic::{self, AssertUnwindSafe};
use std::thread;

use aws_nitro_enclaves_attestation::NitroAdDoc;

struct Case {
    root: usize,
    time: u64,
    document: Vec<u8>,
}

fn number(input: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    input.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn bytes(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut content = vec![0; number(input)? as usize];
    input.read_exact(&mut content)?;
    Ok(content)
}

fn case(input: &mut impl Read) -> io::Result<Case> {
    let root = number(input)? as usize;
    let mut time = [0; 8];
    input.read_exact(&mut time)?;
    Ok(Case { root, time: u64::from_be_bytes(time), document: bytes(input)? })
}

fn verdict(case: &Case, roots: &[Vec<u8>]) -> String {
    let checked = panic::catch_unwind(AssertUnwindSafe(|| {
        NitroAdDoc::from_bytes(&case.document, &roots[case.root], case.time)
            .map(|_| ())
            .map_err(|error| format!("{error:?}"))
    }));
    let line = match checked {
        Ok(Ok(())) => "accepted".to_string(),
        Ok(Err(reason)) => format!("refused: {reason}"),
        Err(cause) => {
            let reason = cause.downcast_ref::<String>().cloned();
            let brief = cause.downcast_ref::<&str>().map(|text| text.to_string());
            format!("panicked: {}", reason.or(brief).unwrap_or_default())
        }
    };
    line.replace(['\n', '\r'], " ").chars().take(300).collect()
}

fn main() -> io::Result<()> {
    panic::set_hook(Box::new(|_| {}));
    let mut input = io::stdin().lock();
    let mut output = io::stdout().lock();
    let count = number(&mut input)?;
    let roots = (0..count).map(|_| bytes(&mut input)).collect::<io::Result<Vec<_>>>()?;
    while let Ok(count) = number(&mut input) {
        let cases = (0..count).map(|_| case(&mut input)).collect::<io::Result<Vec<_>>>()?;
        let half = cases.len().div_ceil(2).max(1);
        let lines: Vec<String> = thread::scope(|scope| {
            let workers: Vec<_> = cases
                .chunks(half)
                .map(|part| {
                    let roots = &roots;
                    scope.spawn(move || {
                        part.iter().map(|case| verdict(case, roots)).collect::<Vec<_>>()
                    })
                })
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        for line in lines {
            writeln!(output, "{line}")?;
        }
        output.flush()?;
    }
    Ok(())
}
