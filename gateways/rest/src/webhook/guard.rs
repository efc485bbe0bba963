//! Where webhooks may go: not to this machine, and not into the network behind it (server-side request forgery).

use reqwest::Url;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The target is one that webhooks may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is a loopback, link-local, private or otherwise local address (gateways.rest.allow_private_targets)")]
pub(crate) struct PrivateTarget(pub(crate) IpAddr);

/// All of these addresses, or the first that may not be a target. One bad address spoils the name: whoever owns it
/// may choose among them.
pub(crate) fn admit(addresses: impl IntoIterator<Item = IpAddr>) -> Result<(), PrivateTarget> {
    addresses.into_iter().find(|address| !is_public(*address)).map_or(Ok(()), |address| Err(PrivateTarget(address)))
}

/// The address that stands in a URL in place of a name. Decimal, octal and shortened forms were read by the URL's
/// parser: what comes here is what would be connected to.
pub(crate) fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether an address belongs to the public internet (IANA special-purpose registries, RFC 6890 and its updates).
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_unspecified()
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        // "This network" (RFC 791 §3.2), and 240.0.0.0/4 with the broadcast address.
        || a == 0
        || a >= 240
        // Carrier-grade NAT (RFC 6598).
        || (a == 100 && b & 0xC0 == 64)
        // IETF protocol assignments (RFC 6890), the former 6to4 relays (RFC 7526), benchmarks (RFC 2544).
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && b & 0xFE == 18);
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = embedded_v4(address) {
        return is_public_v4(inner);
    }
    let s = address.segments();
    // Only 2000::/3 is given out; that leaves loopback, link-local (fe80::/10), site-local (fec0::/10), unique local
    // (fc00::/7), multicast (ff00::/8), discard-only (100::/64) and local NAT64 (64:ff9b:1::/48) outside.
    let global = s[0] & 0xE000 == 0x2000;
    // 2001::/23 protocol assignments with Teredo and ORCHID, and the two ranges for documentation.
    let special = match s[0] {
        0x2001 => s[1] < 0x200 || s[1] == 0xDB8,
        0x3FFF => s[1] < 0x1000,
        _ => false,
    };
    global && !special
}

/// The IPv4 address that this one stands for: mapped (`::ffff:0:0/96`), NAT64 (`64:ff9b::/96`, RFC 6052) or 6to4
/// (`2002::/16`, RFC 3056).
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0xFFFF, high, low] | [0x64, 0xFF9B, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_local_is_public() {
        for local in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:c0a8:101::1",
            "3fff::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(local.parse().unwrap()), "{local}");
        }
    }

    #[test]
    fn the_internet_is_public() {
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "2001:4860:4860::8888",
            "2606:4700:4700::1111",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn an_address_is_seen_through_every_way_to_write_it() {
        for local in [
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://0/",
            "http://[::ffff:7f00:1]/",
            "http://[0:0:0:0:0:0:0:1]/",
            "http://127.0.0.1:8080/hook",
            "http://1.1.1.1@127.0.0.1/",
            "http://１２７.0.0.1/",
        ] {
            let address = literal(&Url::parse(local).unwrap()).unwrap_or_else(|| panic!("{local}"));
            assert!(!is_public(address), "{local}");
        }
        assert_eq!(literal(&Url::parse("http://localhost/").unwrap()), None);
    }

    #[test]
    fn one_local_address_spoils_the_name() {
        let addresses = ["8.8.8.8", "127.0.0.1"].map(|text| text.parse().unwrap());
        assert_eq!(admit(addresses), Err(PrivateTarget(addresses[1])));
        assert_eq!(admit([addresses[0]]), Ok(()));
    }

    proptest! {
        #[test]
        fn an_embedded_address_is_judged_like_the_plain_one(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for v6 in [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xFF9B, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ] {
                prop_assert_eq!(is_public(v6.into()), is_public(v4.into()));
            }
        }
    }
}
