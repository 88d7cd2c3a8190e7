//! What is said to the kernel about the pods' network: the link, its addresses, the routes.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use coracle_lifecycle::LOOPBACK_PREFIX;
use futures::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::namespace::{Ends, NamespaceError, Result};

/// The mark of our routes: who made them, as `ip route` shows it.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(99);
/// The table of what is local to a namespace.
const LOCAL_TABLE: u8 = 255;
/// The pods' end of the link, in their namespace.
const INSIDE: &str = "eth0";
/// The ends of the link by IPv6. They need not differ from those of other links.
const HOST_END_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const POD_END_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
/// How many networks of four addresses there are in 169.254.64.0/18: away from those that clouds use for themselves.
const SUBNETS: u32 = 1 << 12;

/// Says what failed, in the kernel's words.
fn failed(what: &'static str) -> impl FnOnce(rtnetlink::Error) -> NamespaceError {
    move |error| {
        let source = match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other.to_string()),
        };
        NamespaceError::System { what, source }
    }
}

fn is_absent(error: &rtnetlink::Error) -> bool {
    let absent = [rustix::io::Errno::NODEV, rustix::io::Errno::NOENT].map(rustix::io::Errno::raw_os_error);
    matches!(error, rtnetlink::Error::NetlinkError(message) if absent.contains(&message.raw_code().abs()))
}

async fn index(netlink: &Handle, name: &str) -> Result<Option<u32>> {
    let found = netlink.link().get().match_name(name).execute().try_next().await;
    match found {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(failed("looking for the link to the pods")(error)),
    }
}

async fn required_index(netlink: &Handle, name: &str) -> Result<u32> {
    let absent = || io::Error::from(io::ErrorKind::NotFound);
    let index = index(netlink, name).await?;
    index.ok_or_else(|| NamespaceError::System { what: "looking for the link to the pods", source: absent() })
}

pub(super) async fn remove_link(netlink: &Handle, name: &str) -> Result<()> {
    let Some(index) = index(netlink, name).await? else { return Ok(()) };
    match netlink.link().del(index).execute().await {
        Err(error) if !is_absent(&error) => Err(failed("removing the link to the pods")(error)),
        _ => Ok(()),
    }
}

/// The machine's side: the link and its address.
pub(super) async fn make_link(netlink: &Handle, name: &str, inside: RawFd) -> Result<Ends> {
    remove_link(netlink, name).await?;
    let ends = free_ends(netlink, name).await?;
    let peer = LinkMessageBuilder::<LinkUnspec>::new().name(INSIDE).setns_by_fd(inside).build();
    let link = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(name)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    netlink.link().add(link).execute().await.map_err(failed("making the link to the pods"))?;
    let index = required_index(netlink, name).await?;
    add_address(netlink, index, IpAddr::V4(ends.host), 30).await?;
    // Where the machine has no IPv6, pods have none either.
    let _ = add_address(netlink, index, IpAddr::V6(HOST_END_V6), 64).await;
    set_up(netlink, index).await?;
    Ok(ends)
}

/// Two link-local addresses that nobody on this machine has.
async fn free_ends(netlink: &Handle, name: &str) -> Result<Ends> {
    let known: Vec<_> =
        netlink.address().get().execute().try_collect().await.map_err(failed("listing addresses"))?;
    let known: Vec<IpAddr> = known
        .iter()
        .flat_map(|message| &message.attributes)
        .filter_map(|attribute| match attribute {
            AddressAttribute::Address(address) | AddressAttribute::Local(address) => Some(*address),
            _ => None,
        })
        .collect();
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let first = u32::try_from(hasher.finish() % u64::from(SUBNETS)).unwrap_or_default();
    (0..SUBNETS)
        .map(|step| ends((first + step) % SUBNETS))
        .find(|ends| !known.contains(&ends.host.into()) && !known.contains(&ends.pod.into()))
        .ok_or(NamespaceError::NoSubnet)
}

fn ends(number: u32) -> Ends {
    let network = u32::from(Ipv4Addr::new(169, 254, 64, 0)) | number << 2;
    Ends { host: (network | 1).into(), pod: (network | 2).into() }
}

async fn add_address(netlink: &Handle, index: u32, address: IpAddr, prefix: u8) -> Result<()> {
    let mut request = netlink.address().add(index, address, prefix);
    if address.is_ipv6() {
        // Nobody else is on the link who could have it.
        let message = request.message_mut();
        message.header.flags |= AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    request.execute().await.map_err(failed("giving the link to the pods its address"))
}

async fn set_up(netlink: &Handle, index: u32) -> Result<()> {
    let message = LinkUnspec::new_with_index(index).up().build();
    netlink.link().set(message).execute().await.map_err(failed("bringing the link to the pods up"))
}

/// The pods' side: their end of the link, the way to all others, and the loopbacks of pods.
pub(super) async fn furnish(netlink: &Handle, ends: Ends) -> Result<()> {
    set_up(netlink, required_index(netlink, "lo").await?).await?;
    let index = required_index(netlink, INSIDE).await?;
    add_address(netlink, index, IpAddr::V4(ends.pod), 30).await?;
    let has_v6 = add_address(netlink, index, IpAddr::V6(POD_END_V6), 64).await.is_ok();
    set_up(netlink, index).await?;
    let out = RouteMessageBuilder::<Ipv4Addr>::new().gateway(ends.host).output_interface(index);
    add_route(netlink, out.protocol(PROTOCOL).build()).await?;
    if has_v6 {
        let out = RouteMessageBuilder::<Ipv6Addr>::new().gateway(HOST_END_V6).output_interface(index);
        add_route(netlink, out.protocol(PROTOCOL).build()).await?;
        make_local(netlink, ipnet::Ipv6Net::new_assert(LOOPBACK_PREFIX, 64).into()).await?;
    }
    Ok(())
}

async fn add_route(netlink: &Handle, route: RouteMessage) -> Result<()> {
    netlink.route().add(route).execute().await.map_err(failed("adding a route for the pods"))
}

/// Makes every address of a range one of this namespace's own.
pub(super) async fn make_local(netlink: &Handle, range: IpNet) -> Result<()> {
    let loopback = required_index(netlink, "lo").await?;
    let (base, prefix) = (range.network(), range.prefix_len());
    let mut route = match base {
        IpAddr::V4(base) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(base, prefix).build(),
        IpAddr::V6(base) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(base, prefix).build(),
    };
    route.header.table = LOCAL_TABLE;
    route.header.kind = RouteType::Local;
    route.header.scope = RouteScope::Host;
    route.header.protocol = PROTOCOL;
    route.attributes.push(RouteAttribute::Oif(loopback));
    add_route(netlink, route).await
}

fn to_pods(index: u32, range: IpNet, ends: Ends, source: Option<IpAddr>) -> RouteMessage {
    let prefix = range.prefix_len();
    let mut route = match range.network() {
        IpAddr::V4(base) => {
            let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(base, prefix);
            route.gateway(ends.pod).output_interface(index).build()
        }
        IpAddr::V6(base) => {
            let route = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(base, prefix);
            route.gateway(POD_END_V6).output_interface(index).build()
        }
    };
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = PROTOCOL;
    let preferred = source.map(|source| RouteAttribute::PrefSource(source.into()));
    route.attributes.extend(preferred);
    route
}

/// Leads what the machine sends to a range over the link. Pods see it come from the node's address, where it has one that
/// others know.
pub(super) async fn make_route(
    netlink: &Handle,
    link: &str,
    range: IpNet,
    ends: Ends,
    own: &[IpAddr],
) -> Result<()> {
    let index = required_index(netlink, link).await?;
    let is_ipv4 = range.network().is_ipv4();
    let source = own.iter().copied().find(|own| own.is_ipv4() == is_ipv4 && !own.is_loopback());
    if source.is_some() && add_route(netlink, to_pods(index, range, ends, source)).await.is_ok() {
        return Ok(());
    }
    // The node's address need not be one of this machine's interfaces: it may be translated on the way.
    add_route(netlink, to_pods(index, range, ends, None)).await
}

pub(super) async fn forget_route(netlink: &Handle, link: &str, range: IpNet, ends: Ends) -> Result<()> {
    let index = required_index(netlink, link).await?;
    let route = to_pods(index, range, ends, None);
    netlink.route().del(route).execute().await.map_err(failed("removing a route to pods"))
}
