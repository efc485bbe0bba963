//! Lists come in pages: `limit` entries, `next` goes into `after`.

use crate::{problem::Problem, query::Query};

/// Entries of a list, unless `limit` says otherwise.
pub(crate) const DEFAULT: usize = 100;

/// The most `limit` may say.
pub(crate) const MOST: usize = 1_000;

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
