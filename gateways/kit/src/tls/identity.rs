//! The name in a client's certificate, once the certificate has been verified.

use super::UseIdentity;
use rustls::{ServerConnection, pki_types::CertificateDer};
use webpki::EndEntityCert;

/// The longest name taken, in bytes. X.509 itself stops at 64 characters for a common name.
const LONGEST: usize = 1_024;

/// The name `wanted` of the certificate that `connection` has verified.
pub(super) fn of(connection: &ServerConnection, wanted: UseIdentity) -> Result<String, &'static str> {
    let chain = connection.peer_certificates().unwrap_or_default();
    of_certificate(chain.first().ok_or("the client showed no certificate")?, wanted)
}

/// The name `wanted` of a certificate that was verified.
pub(super) fn of_certificate(certificate: &CertificateDer<'_>, wanted: UseIdentity) -> Result<String, &'static str> {
    let certificate = EndEntityCert::try_from(certificate).map_err(|_| "the client's certificate cannot be read")?;
    let (name, missing) = match wanted {
        UseIdentity::No => (None, "no name is wanted"),
        UseIdentity::CommonName => (common_name(certificate.subject()), "the client's certificate has no common name"),
        UseIdentity::AlternativeName => (
            certificate.valid_dns_names().next().or_else(|| certificate.valid_uri_names().next()),
            "the client's certificate has no alternative name (DNS or URI)",
        ),
    };
    let name = name.ok_or(missing)?;
    if name.is_empty() || name.len() > LONGEST || name.chars().any(char::is_control) {
        return Err("the name in the client's certificate is empty, too long, or holds control characters");
    }
    Ok(name.to_owned())
}

/// `id-at-commonName`, 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// Tags of X.690 DER that a name is made of.
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0C;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;

/// The first common name of a subject (RFC 5280 §4.1.2.4): a sequence of sets of pairs of type and value.
fn common_name(subject: &[u8]) -> Option<&str> {
    let mut subject = Der(subject);
    while let Some(set) = subject.next(SET) {
        let mut set = Der(set);
        while let Some(pair) = set.next(SEQUENCE) {
            let mut pair = Der(pair);
            if pair.next(OBJECT_IDENTIFIER) == Some(&COMMON_NAME) {
                let (tag, value) = pair.any()?;
                let text = matches!(tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING);
                return std::str::from_utf8(value).ok().filter(|_| text);
            }
        }
    }
    None
}

/// DER values one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value, if it has this tag.
    fn next(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.any().filter(|(found, _)| *found == tag).map(|(_, value)| value)
    }

    /// The next value and its tag.
    fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        // X.690 §8.1.3: a length below 128, or the number of bytes the length has. No name needs more than two.
        let (length, rest) = match first {
            0..=0x7F => (usize::from(first), rest),
            0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
            0x82 => rest.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?,
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_common_name_of_a_subject_is_found_among_its_other_parts() {
        // O = "x", CN = "attic" (UTF8String), CN = "cellar" (PrintableString)
        let subject = b"\x31\x0a\x30\x08\x06\x03\x55\x04\x0a\x0c\x01x\
            \x31\x0e\x30\x0c\x06\x03\x55\x04\x03\x0c\x05attic\
            \x31\x0f\x30\x0d\x06\x03\x55\x04\x03\x13\x06cellar";
        assert_eq!(common_name(subject), Some("attic"));
        assert_eq!(common_name(&subject[28..]), Some("cellar"));
        assert_eq!(common_name(&subject[..12]), None);
    }

    #[test]
    fn bytes_that_are_no_name_give_none() {
        for bytes in
            [&b""[..], b"\x31", b"\x31\x84\xff\xff\xff\xff", b"\x31\x05\x30\x09\x06", b"\x30\x00", b"\x31\x82\xff"]
        {
            assert_eq!(common_name(bytes), None, "{bytes:02x?}");
        }
        // A BMPString is not text that we read.
        assert_eq!(common_name(b"\x31\x0b\x30\x09\x06\x03\x55\x04\x03\x1e\x02\0a"), None);
    }
}
