//! The same on Fleetpass and on a real Kubernetes: what two runs wrote, line by line.

mod differences;
mod normal;

pub use differences::Differences;
pub use normal::normal;

/// Where two texts differ: their lines, those that only one has marked, with a few of what is around.
pub fn diff(ours: &str, theirs: &str) -> String {
    let (ours, theirs): (Vec<&str>, Vec<&str>) = (ours.lines().collect(), theirs.lines().collect());
    let mut lengths = vec![vec![0_usize; theirs.len() + 1]; ours.len() + 1];
    for (i, mine) in ours.iter().enumerate().rev() {
        for (j, other) in theirs.iter().enumerate().rev() {
            lengths[i][j] = if mine == other {
                lengths[i + 1][j + 1] + 1
            } else {
                lengths[i + 1][j].max(lengths[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < ours.len() || j < theirs.len() {
        if i < ours.len() && j < theirs.len() && ours[i] == theirs[j] {
            lines.push((' ', ours[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == theirs.len() || (i < ours.len() && lengths[i + 1][j] >= lengths[i][j + 1]) {
            lines.push(('F', ours[i]));
            i += 1;
        } else {
            lines.push(('K', theirs[j]));
            j += 1;
        }
    }
    let near = |at: usize| {
        let around = lines[at.saturating_sub(2)..lines.len().min(at + 3)].iter();
        around.into_iter().any(|(mark, _)| *mark != ' ')
    };
    let shown = lines.iter().enumerate().filter(|(at, _)| near(*at));
    shown.map(|(_, (mark, line))| format!("  {mark} {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::diff;

    #[test]
    fn a_diff_shows_what_only_one_has_and_what_is_near() {
        let ours = "1\n2\n3\n4\n5\n6\n7\nmine";
        let theirs = "1\n2\n3\n4\n5\ntheirs\n6\n7";
        let want = "    4\n    5\n  K theirs\n    6\n    7\n  F mine\n";
        assert_eq!(diff(ours, theirs), want);
        assert_eq!(diff(ours, ours), "");
    }
}
