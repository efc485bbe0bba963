//! Boards publish as fast as the protocol lets them, one message under way each.

use std::time::Instant;

use anyhow::Result;

use super::super::args::Common;
use super::super::progress::Progress;
use super::board::{Board, Doing};
use super::crowd::Crowd;
use super::{Measured, Meter, millis};

pub(super) fn run(crowd: &mut Crowd, common: &Common, meter: &Meter) -> Result<Measured> {
    let each = common.messages.map(|messages| u64::from(messages).div_ceil(crowd.boards.len() as u64));
    let began = Instant::now();
    let (from, until) = meter.interval(began, common);
    let progress = Progress::new(millis(until - began), "publishing");
    let mut start = meter.read(0)?;
    let most = each.map_or(u32::MAX, |each| u32::try_from(each).unwrap_or(u32::MAX));
    for at in 0..crowd.boards.len() {
        crowd.step(at, |board, now| board.publish(now, most))?;
    }
    loop {
        crowd.turn()?;
        let now = Instant::now();
        if !crowd.measuring && now >= from {
            crowd.measuring = true;
            start = meter.read(crowd.counts.acknowledged)?;
        }
        let resting = |board: &Board| matches!(board.doing(), Doing::Ready | Doing::Nothing);
        let over = if each.is_none() { now >= until } else { crowd.boards.iter().all(resting) };
        progress.at(millis(now - began), format!("{} acknowledged", crowd.counts.acknowledged));
        if over {
            break;
        }
    }
    crowd.measuring = false;
    Ok(start.until(&meter.read(crowd.counts.acknowledged)?))
}
