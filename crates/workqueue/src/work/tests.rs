use super::*;
use std::cell::{Cell, RefCell};

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(300));

/// Works off `backlog` with `options` for so many virtual seconds.
async fn work_for<K, Run>(
    seconds: u64,
    backlog: Backlog<K>,
    options: Options<K>,
    reconcile: impl Fn(K) -> Run,
    failed: impl Fn(&K, &Failure<&'static str>),
) -> usize
where
    K: Clone + Eq + Hash,
    Run: Future<Output = Result<Next, &'static str>>,
{
    let stop = CancellationToken::new();
    let end = async {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        stop.cancel();
    };
    tokio::join!(backlog.work(options, stop.clone(), reconcile, failed), end).0
}

#[tokio::test(start_paused = true)]
async fn keys_are_merged_repeated_and_backed_off() {
    let (queue, backlog) = queue(BACKOFF);
    let seen = RefCell::new(Vec::new());
    let failures = RefCell::new(Vec::new());
    queue.add("bad");
    queue.add("good");
    queue.add("good");
    queue.add_after("again", Duration::from_secs(1));
    let reconcile = |key| {
        seen.borrow_mut().push(key);
        async move {
            match key {
                "bad" => Err("broken"),
                "again" => Ok(Next::After(Duration::from_secs(4))),
                _ => Ok(Next::Wait),
            }
        }
    };
    let failed = |key: &&str, failure: &Failure<_>| {
        assert_eq!(*key, "bad");
        assert!(matches!(failure.cause, Cause::Error("broken")));
        failures.borrow_mut().push((failure.failures, failure.delay));
    };
    work_for(10, backlog, Options::workers(1), reconcile, failed).await;
    let count = |key| seen.borrow().iter().filter(|run| **run == key).count();
    assert_eq!(count("good"), 1);
    assert_eq!(count("again"), 3, "after 1, 5 and 9 seconds");
    assert_eq!(count("bad"), 8, "after 0, 50, 150, 350, 750, 1550, 3150 and 6350 ms");
    let expected = (0..8).map(|earlier| (earlier + 1, BACKOFF.delay(earlier)));
    assert_eq!(*failures.borrow(), expected.collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_key_is_never_worked_on_twice_at_once_but_comes_again() {
    let (queue, backlog) = queue(BACKOFF);
    let (busy, ended) = (Cell::new(0), Cell::new(0));
    queue.add(1);
    let reconcile = |_| async {
        busy.set(busy.get() + 1);
        assert_eq!(busy.get(), 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        busy.set(busy.get() - 1);
        ended.set(ended.get() + 1);
        Ok(Next::Wait)
    };
    let add = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        queue.add(1);
        queue.add(1);
    };
    tokio::join!(work_for(5, backlog, Options::workers(4), reconcile, |_, _| ()), add);
    assert_eq!(ended.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_more_keys_run_at_once_than_there_are_workers() {
    for workers in [1, 3, usize::MAX] {
        let (queue, backlog) = queue(BACKOFF);
        (0..10).for_each(|key| queue.add(key));
        let (busy, most, ended) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let reconcile = |_| async {
            busy.set(busy.get() + 1);
            most.set(busy.get().max(most.get()));
            tokio::time::sleep(Duration::from_secs(1)).await;
            busy.set(busy.get() - 1);
            ended.set(ended.get() + 1);
            Ok(Next::Wait)
        };
        work_for(60, backlog, Options::workers(workers), reconcile, |_, _| ()).await;
        assert_eq!((most.get(), ended.get()), (workers.min(10), 10));
    }
}

#[tokio::test(start_paused = true)]
async fn jitter_comes_from_the_caller() {
    let (queue, backlog) = queue(Backoff::constant(Duration::from_secs(10)));
    [0, 100, 900].into_iter().for_each(|key| queue.add(key));
    let options = Options { jitter: |key| *key, ..Options::workers(3) };
    let delays = RefCell::new(Vec::new());
    let note = |key: &u32, failure: &Failure<_>| delays.borrow_mut().push((*key, failure.delay.as_secs()));
    work_for(1, backlog, options, |_| async { Err("broken") }, note).await;
    assert_eq!(*delays.borrow(), [(0, 10), (100, 9), (900, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_too_long_makes_room_and_waits_longest() {
    let (queue, backlog) = queue(BACKOFF);
    queue.add("stuck");
    queue.add("good");
    let options = Options { longest_run: Some(Duration::from_secs(120)), ..Options::workers(1) };
    let runs = RefCell::new(Vec::new());
    let start = Instant::now();
    let reconcile = |key| {
        runs.borrow_mut().push((key, start.elapsed().as_secs()));
        async move {
            if key == "stuck" {
                std::future::pending::<()>().await;
            }
            Ok(Next::Wait)
        }
    };
    let failed = |key: &&str, failure: &Failure<_>| {
        assert_eq!(*key, "stuck");
        assert!(matches!(failure.cause, Cause::TookTooLong));
        assert_eq!(failure.delay, BACKOFF.last);
    };
    work_for(430, backlog, options, reconcile, failed).await;
    assert_eq!(*runs.borrow(), [("stuck", 0), ("good", 120), ("stuck", 420)]);
}

#[tokio::test(start_paused = true)]
async fn hurry_retries_at_once() {
    let (queue, backlog) = queue(Backoff::constant(Duration::from_secs(100)));
    queue.add("a");
    let broken = Cell::new(true);
    let runs = RefCell::new(Vec::new());
    let start = Instant::now();
    let reconcile = |_| {
        runs.borrow_mut().push(start.elapsed().as_secs());
        let result = if broken.get() { Err("broken") } else { Ok(Next::Wait) };
        async move { result }
    };
    let mend = async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        broken.set(false);
        queue.hurry();
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.hurry();
    };
    tokio::join!(work_for(300, backlog, Options::workers(1), reconcile, |_, _| ()), mend);
    assert_eq!(*runs.borrow(), [0, 7]);
}

#[tokio::test(start_paused = true)]
async fn after_the_stop_nothing_begins_and_runs_have_the_grace_to_end() {
    // The grace in seconds; which runs, of 2, 5 and 9 seconds, end; how many are dropped.
    for (grace, ends, dropped) in [(0, &[][..], 3), (3, &[2][..], 2), (5, &[2, 5], 1), (60, &[2, 5, 9], 0)] {
        let (queue, backlog) = queue(BACKOFF);
        [2, 5, 9, 10].into_iter().for_each(|key| queue.add(key));
        let (begun, ended) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let (begun, ended) = (&begun, &ended);
        let reconcile = |key| async move {
            begun.borrow_mut().push(key);
            tokio::time::sleep(Duration::from_secs(key)).await;
            ended.borrow_mut().push(key);
            Ok(Next::Wait)
        };
        let options = Options { grace: Duration::from_secs(grace), ..Options::workers(3) };
        let left = work_for(1, backlog, options, reconcile, |_, _| ()).await;
        assert_eq!((&ended.borrow()[..], left), (ends, dropped), "a grace of {grace} s");
        assert_eq!(*begun.borrow(), [2, 5, 9]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_queue_notices_what_is_added() {
    let (queue, backlog) = queue(BACKOFF);
    let runs = RefCell::new(Vec::new());
    let start = Instant::now();
    let reconcile = |key| {
        runs.borrow_mut().push((key, start.elapsed().as_secs()));
        async { Ok(Next::Wait) }
    };
    let add = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.add("now");
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.add_after("late", Duration::from_secs(9));
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.add_after("soon", Duration::from_secs(2));
    };
    tokio::join!(work_for(60, backlog, Options::workers(1), reconcile, |_, _| ()), add);
    assert_eq!(*runs.borrow(), [("now", 1), ("soon", 5), ("late", 11)]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_with_the_stop_makes_room_for_no_other() {
    // Which of several things that are ready at once comes first must not be left to chance.
    for _ in 0..32 {
        let (queue, backlog) = queue(BACKOFF);
        [0, 1, 2].into_iter().for_each(|key| queue.add(key));
        let (stop, begun) = (CancellationToken::new(), Cell::new(0));
        let reconcile = |_| {
            begun.set(begun.get() + 1);
            stop.cancel();
            async { Ok::<_, &str>(Next::Wait) }
        };
        backlog.work(Options::workers(1), stop.clone(), reconcile, |_, _| ()).await;
        assert_eq!(begun.get(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_added_after_the_end_is_not_kept() {
    let (queue, backlog) = queue(BACKOFF);
    let key = Arc::new(());
    queue.add(key.clone());
    work_for(0, backlog, Options::workers(1), |_| std::future::pending(), |_, _| ()).await;
    queue.add(key.clone());
    queue.add_after(key.clone(), Duration::from_secs(1));
    assert_eq!(Arc::strong_count(&key), 1);
}
