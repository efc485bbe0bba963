//! Lists come in pages: `limit` entries, `next` goes into `after`.

use crate::{problem::Problem, query::Query};
use utoipa::IntoParams;
use waystation_broker::{Broker, ClientId, SessionInfo};

/// Entries of a list, unless `limit` says otherwise.
pub(crate) const DEFAULT: usize = 100;

/// The most `limit` may say.
pub(crate) const MOST: usize = 1_000;

/// What every list may be asked, as the description of the interface tells it; [`limit`] and the list itself read it.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes; nothing is read into it")]
pub(crate) struct Asked {
    /// Most entries of this page; lowered to 1000
    #[param(minimum = 1)]
    limit: Option<u32>,
    /// `next` of the page before
    after: Option<String>,
}

/// `limit`: lowered to the most there is.
pub(crate) fn limit(query: &mut Query) -> Result<usize, Problem> {
    match query.parsed::<usize>("limit", "a number from 1")? {
        Some(0) => Err(Problem::BadQuery("`limit=0`: a number from 1 is right".into())),
        Some(limit) => Ok(limit.min(MOST)),
        None => Ok(DEFAULT),
    }
}

/// Cuts what is over `limit` off; gives what names the last that stays, if something was.
pub(crate) fn cut<T, N>(found: &mut Vec<T>, limit: usize, name: impl FnOnce(&T) -> N) -> Option<N> {
    let more = found.len() > limit;
    found.truncate(limit);
    found.last().filter(|_| more).map(name)
}

/// What `of` makes of the sessions after `after`, in the order of their ids, until there is more than a page of it. A
/// session may make nothing, so that a page of the broker may give less than a page of ours; or many.
pub(crate) fn of_sessions<T, I: IntoIterator<Item = T>>(
    broker: &Broker,
    mut after: Option<ClientId>,
    limit: usize,
    found: &mut Vec<T>,
    of: impl Fn(SessionInfo) -> I,
) {
    while found.len() <= limit {
        let some = broker.sessions(after.as_ref(), (limit + 1).max(DEFAULT));
        let Some(last) = some.last() else { break };
        after = Some(last.id.clone());
        found.extend(some.into_iter().flat_map(&of));
    }
}

/// A page of a list that is small as a whole, in the order of its names.
pub(crate) fn of<T>(
    all: impl Iterator<Item = T>,
    name: impl Fn(&T) -> &String,
    after: Option<&str>,
    limit: usize,
) -> (Vec<T>, Option<String>) {
    let mut found: Vec<T> = all.filter(|one| after.is_none_or(|after| name(one).as_str() > after)).collect();
    found.sort_by(|a, b| name(a).cmp(name(b)));
    let next = cut(&mut found, limit, |last| name(last).clone());
    (found, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_list_is_sorted_and_cut() {
        let all = || ["c", "a", "b"].into_iter().map(str::to_owned);
        assert_eq!(of(all(), |name| name, None, 2), (vec!["a".into(), "b".into()], Some("b".into())));
        assert_eq!(of(all(), |name| name, Some("b"), 2), (vec!["c".into()], None));
        assert_eq!(of(all(), |name| name, None, 3).1, None);
    }
}
