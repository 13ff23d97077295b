//! Networks of IP addresses, as the configuration names them (RFC 4632, RFC 4291).

use std::{net::IpAddr, str::FromStr};

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// With the bits after the prefix set to 0.
    address: IpAddr,
    /// The length of the prefix, in bits.
    prefix: u32,
}

impl Network {
    /// Whether the address is one of them. An address of IPv4 is the same in IPv6 (RFC 4291, section 2.5.5.2).
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::new(address.to_canonical(), self.prefix) == *self
    }

    fn new(address: IpAddr, prefix: u32) -> Self {
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix)).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix)).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        };
        Self { address, prefix }
    }
}

impl FromStr for Network {
    type Err = &'static str;

    /// `10.0.0.0/8`, or one address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "which is not a network such as 10.0.0.0/8 or an address";

        let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
        let given: IpAddr = address.parse().map_err(|_| EXPECTED)?;
        let bits = if given.is_ipv4() { 32 } else { 128 };
        let prefix: u32 = match prefix {
            "" if text == address => bits,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().map_err(|_| EXPECTED)?,
            _ => return Err(EXPECTED),
        };
        if prefix > bits {
            return Err("whose prefix is longer than an address");
        }

        // A network of addresses of IPv4 that is written in IPv6.
        let canonical = given.to_canonical();
        match (given.is_ipv6() && canonical.is_ipv4(), prefix.checked_sub(96)) {
            (true, Some(prefix)) => Ok(Self::new(canonical, prefix)),
            _ => Ok(Self::new(given, prefix)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_what_begins_with_its_bits() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3/8", "10.0.0.0", "9.255.255.255"),
            ("192.168.1.7", "192.168.1.7", "192.168.1.8"),
            ("0.0.0.0/0", "203.0.113.1", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.1.1.1", "::ffff:11.1.1.1"),
            ("::ffff:10.0.0.0/104", "10.1.1.1", "11.1.1.1"),
        ] {
            let [inside, outside] = [inside, outside].map(|address| address.parse().expect("an address"));
            let network: Network = network.parse().expect("a network");
            assert!(network.contains(inside) && !network.contains(outside), "{network:?}");
        }

        for invalid in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "shop",
            "10.0.0.0/8/8",
        ] {
            assert!(invalid.parse::<Network>().is_err(), "{invalid}");
        }
    }
}
