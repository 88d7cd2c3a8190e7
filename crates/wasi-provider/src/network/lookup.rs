//! `wasi:sockets/ip-name-lookup` of WASI 0.2 and 0.3.

use std::net::IpAddr;
use std::sync::Arc;
use std::vec;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, Linker, Resource, ResourceType};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress};
use wasmtime_wasi::p2::{DynPollable, Network, Pollable, SocketResult, subscribe};
use wasmtime_wasi::p3::bindings::sockets::{ip_name_lookup as concurrent, types};
use wasmtime_wasi::sockets::WasiSocketsView as _;

use super::names::LookupError;
use super::tcp::answer;
use crate::guest::ComponentGuest;

/// The interfaces under the versions that wasmtime gives them.
pub(super) const INTERFACE: &str = "wasi:sockets/ip-name-lookup@0.2.12";
pub(super) const CONCURRENT_INTERFACE: &str = "wasi:sockets/ip-name-lookup@0.3.0";

type Store<'a> = StoreContextMut<'a, ComponentGuest>;
type Found = Result<Vec<IpAddr>, LookupError>;

pub(super) fn add_to_linker(linker: &mut Linker<ComponentGuest>) -> wasmtime::Result<()> {
    linker.instance(CONCURRENT_INTERFACE)?.func_wrap_concurrent(
        "resolve-addresses",
        |store: &Accessor<ComponentGuest>, (name,): (String,)| {
            Box::pin(async move { Ok((resolve_concurrently(store, name).await,)) })
        },
    )?;
    let mut lookup = linker.instance(INTERFACE)?;
    lookup.resource(
        "resolve-address-stream",
        ResourceType::host::<Answer>(),
        |mut store: Store<'_>, stream| {
            let stream = Resource::<Answer>::new_own(stream);
            store.data_mut().sockets().table.delete(stream)?;
            Ok(())
        },
    )?;
    lookup.func_wrap("resolve-addresses", |mut store: Store<'_>, (network, name)| {
        answer(resolve(&mut store, &network, name))
    })?;
    lookup.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut store: Store<'_>, (stream,)| answer(next(&mut store, &stream)),
    )?;
    lookup.func_wrap("[method]resolve-address-stream.subscribe", |mut store: Store<'_>, (stream,)| {
        Ok((watch(&mut store, stream)?,))
    })
}

/// The answer to a look-up: what a guest of WASI 0.2 reads address by address.
enum Answer {
    Awaited(BoxFuture<'static, Found>),
    Come(Result<vec::IntoIter<IpAddr>, LookupError>),
}

impl Answer {
    fn come(&mut self, found: Found) {
        *self = Self::Come(found.map(Vec::into_iter));
    }
}

// Nobody shares one: the table gives it out for writing only.
#[async_trait]
impl Pollable for Answer {
    async fn ready(&mut self) {
        if let Self::Awaited(found) = self {
            let found = found.await;
            self.come(found);
        }
    }
}

fn resolve(
    store: &mut Store<'_>,
    network: &Resource<Network>,
    name: String,
) -> SocketResult<Resource<Answer>> {
    let guest = store.data_mut();
    let sockets = guest.sockets();
    sockets.table.get(network)?;
    let network = Arc::clone(&guest.world.network);
    let found = async move { network.names.look_up(&name).await }.boxed();
    Ok(guest.sockets().table.push(Answer::Awaited(found))?)
}

fn next(store: &mut Store<'_>, stream: &Resource<Answer>) -> SocketResult<Option<IpAddress>> {
    let answer = store.data_mut().sockets().table.get_mut(stream)?;
    if let Answer::Awaited(found) = answer {
        match found.now_or_never() {
            Some(found) => answer.come(found),
            None => return Err(ErrorCode::WouldBlock.into()),
        }
    }
    match answer {
        Answer::Come(Ok(addresses)) => Ok(addresses.next().map(IpAddress::from)),
        Answer::Come(Err(error)) => Err(code(*error).into()),
        Answer::Awaited(_) => Err(ErrorCode::WouldBlock.into()),
    }
}

fn watch(store: &mut Store<'_>, stream: Resource<Answer>) -> wasmtime::Result<Resource<DynPollable>> {
    subscribe(store.data_mut().sockets().table, stream)
}

fn code(error: LookupError) -> ErrorCode {
    match error {
        LookupError::Invalid => ErrorCode::InvalidArgument,
        LookupError::Unknown => ErrorCode::NameUnresolvable,
        LookupError::Temporary => ErrorCode::TemporaryResolverFailure,
        LookupError::Permanent => ErrorCode::PermanentResolverFailure,
    }
}

async fn resolve_concurrently(
    store: &Accessor<ComponentGuest>,
    name: String,
) -> Result<Vec<types::IpAddress>, concurrent::ErrorCode> {
    let network = store.with(|mut access| Arc::clone(&access.get().world.network));
    match network.names.look_up(&name).await {
        Ok(addresses) => Ok(addresses.into_iter().map(types::IpAddress::from).collect()),
        Err(LookupError::Invalid) => Err(concurrent::ErrorCode::InvalidArgument),
        Err(LookupError::Unknown) => Err(concurrent::ErrorCode::NameUnresolvable),
        Err(LookupError::Temporary) => Err(concurrent::ErrorCode::TemporaryResolverFailure),
        Err(LookupError::Permanent) => Err(concurrent::ErrorCode::PermanentResolverFailure),
    }
}
