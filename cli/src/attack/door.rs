//! The only way out of an attacker: every socket that speaks to somebody is opened here, and speaks to nobody whom the
//! operator's permit does not name.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};

use anyhow::Context as _;

use super::permit::Permit;
use super::plan::Plan;

/// To whom an attacker may speak.
#[derive(Clone, Debug)]
pub enum Door {
    /// To whom the operator's permit names.
    Permitted(Permit),
    /// To this machine alone.
    Loopback,
}

impl Door {
    /// The door of an attacker with this plan.
    ///
    /// # Errors
    /// The plan has no permit, or one that permits nothing.
    pub fn of(plan: &Plan) -> anyhow::Result<Self> {
        let path = plan.permit.as_deref().context("the plan has no permit: fivefold range permit makes one")?;
        Ok(Self::Permitted(Permit::read(path, &plan.ca, crate::clock::now()?)?))
    }

    /// # Errors
    /// The attack is none that is permitted.
    pub fn admits(&self, attack: &str) -> anyhow::Result<()> {
        let is_admitted = match self {
            Self::Permitted(permit) => permit.admits(attack),
            Self::Loopback => true,
        };
        anyhow::ensure!(is_admitted, "the permit does not name the attack {attack}");
        Ok(())
    }

    /// # Errors
    /// The address is none that may be spoken to.
    pub fn check(&self, to: SocketAddr) -> anyhow::Result<()> {
        let is_allowed = match self {
            Self::Permitted(permit) => permit.allows(to),
            Self::Loopback => to.ip().is_loopback(),
        };
        anyhow::ensure!(is_allowed, "{to} is not in the permit: nothing is sent there");
        Ok(())
    }

    /// A connection.
    ///
    /// # Errors
    /// The address may not be spoken to, or nobody listens there.
    pub fn connect(&self, to: SocketAddr) -> anyhow::Result<TcpStream> {
        self.check(to)?;
        TcpStream::connect(to).with_context(|| format!("cannot reach {to}"))
    }

    /// The address of HOST:PORT, which may be spoken to.
    ///
    /// # Errors
    /// It is none, or may not be spoken to.
    pub fn resolve(&self, host: &str) -> anyhow::Result<SocketAddr> {
        let mut all = host.to_socket_addrs().with_context(|| format!("cannot resolve {host}"))?;
        let address = all.find(|a| self.check(*a).is_ok());
        address.with_context(|| format!("{host} is not in the permit: nothing is sent there"))
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// The address may not be spoken to, or the socket fails.
    pub fn send_to(&self, socket: &UdpSocket, datagram: &[u8], to: SocketAddr) -> anyhow::Result<()> {
        self.check(to)?;
        socket.send_to(datagram, to)?;
        Ok(())
    }

    /// A socket that speaks to nobody yet. It is bound to loopback where nobody else may be spoken to.
    ///
    /// # Errors
    /// No socket is to be had.
    pub fn socket(&self) -> anyhow::Result<UdpSocket> {
        let is_far = match self {
            Self::Permitted(permit) => permit.addresses().any(|a| !a.ip().is_loopback()),
            Self::Loopback => false,
        };
        Ok(UdpSocket::bind(if is_far { "0.0.0.0:0" } else { "127.0.0.1:0" })?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::attack::permit::tests::{NOW, operator};

    #[test]
    fn not_one_packet_goes_to_an_address_that_the_permit_does_not_name() {
        let folder = tempfile::tempdir().unwrap();
        let [named, other] = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        let [tcp, other_tcp] = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let key = operator(folder.path());
        let addresses = BTreeSet::from([named.local_addr().unwrap(), tcp.local_addr().unwrap()]);
        let attacks = BTreeSet::from(["recorder-flips".to_owned()]);
        let permit = Permit::write(&folder.path().join("p"), &key, addresses, attacks, (NOW, NOW + 60)).unwrap();
        let door = Door::Permitted(permit);
        let socket = door.socket().unwrap();
        door.send_to(&socket, b"x", named.local_addr().unwrap()).unwrap();
        let wrong = door.send_to(&socket, b"x", other.local_addr().unwrap()).unwrap_err().to_string();
        assert!(wrong.contains("not in the permit"), "{wrong}");
        assert!(door.connect(tcp.local_addr().unwrap()).is_ok());
        assert!(door.connect(other_tcp.local_addr().unwrap()).is_err());
        assert!(door.resolve(&format!("localhost:{}", other_tcp.local_addr().unwrap().port())).is_err());
        assert!(door.admits("recorder-flips").is_ok() && door.admits("recorder-reads").is_err());
        for socket in [&named, &other] {
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        }
        assert_eq!(named.recv(&mut [0; 8]).unwrap(), 1);
        assert!(other.recv(&mut [0; 8]).is_err(), "a packet came to whom nobody named");
        other_tcp.set_nonblocking(true).unwrap();
        assert!(other_tcp.accept().is_err(), "a connection came to whom nobody named");
    }

    #[test]
    fn without_a_permit_nothing_is_sent_away_from_this_machine_and_no_attacker_starts() {
        let socket = Door::Loopback.socket().unwrap();
        assert!(Door::Loopback.send_to(&socket, b"x", "192.0.2.1:9".parse().unwrap()).is_err());
        assert!(Door::Loopback.connect("192.0.2.1:9".parse().unwrap()).is_err());
        assert!(Door::of(&Plan::default()).unwrap_err().to_string().contains("fivefold range permit"));
    }
}
