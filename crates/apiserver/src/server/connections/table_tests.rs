use super::*;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ip(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

/// A table whose connections can be looked at.
struct World {
    table: Table,
    activities: HashMap<u64, Arc<Activity>>,
}

impl World {
    fn new(all: usize, per_address: usize, unauthenticated: usize) -> Self {
        let limits = ConnectionLimits { all, per_address, unauthenticated, ..ConnectionLimits::default() };
        Self { table: Table::new(limits), activities: HashMap::new() }
    }

    fn arrive(&mut self, address: IpAddr, now: Duration) -> Arrival {
        let activity = Arc::new(Activity::new(now));
        let arrival = self.table.arrive(address, activity.clone(), now);
        if let Ok(id) = arrival.admitted {
            self.activities.insert(id, activity);
        }
        // Whatever happens, the limits hold, and an origin is counted as long as it has connections.
        let (strangers, known) = self.table.counts();
        assert!(strangers + known + self.table.closing.len() <= self.table.limits.all);
        assert!(strangers <= self.table.limits.unauthenticated);
        let entries = || self.table.strangers.values().chain(self.table.known.values());
        assert_eq!(self.table.origins.values().map(|count| count.all).sum::<usize>(), entries().count());
        assert_eq!(self.table.origins.values().map(|count| count.strangers).sum::<usize>(), strangers);
        arrival
    }

    /// One that is let in without anybody having to go.
    fn guest(&mut self, address: IpAddr, now: Duration) -> u64 {
        let arrival = self.arrive(address, now);
        assert_eq!(arrival.going, []);
        arrival.admitted.unwrap()
    }

    fn agent(&mut self, address: IpAddr, now: Duration) -> u64 {
        let id = self.guest(address, now);
        self.table.authenticated(id);
        id
    }

    fn busy(&self, id: u64, now: Duration) {
        self.activities[&id].began(|| now);
    }
}

#[test]
fn origins_are_addresses_or_networks() {
    let origin = |text: &str| Origin::of(text.parse().unwrap());
    assert_eq!(origin("192.0.2.1"), origin("::ffff:192.0.2.1"));
    assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
    assert_eq!(origin("2001:db8::1"), origin("2001:db8::ffff:0:0:1"));
    assert_ne!(origin("2001:db8::1"), origin("2001:db8:0:1::1"));
}

#[test]
fn one_stranger_makes_room_for_the_next() {
    let mut world = World::new(100, 100, 3);
    let [idle, busy, fresh] = [0, 1, 9].map(|second| world.guest(ip(1), s(second)));
    world.busy(busy, s(2));
    // The idle one first, then the one with a request, then whoever has been here longest.
    for (at, goes) in [(10, idle), (11, busy), (12, fresh)] {
        let arrival = world.arrive(ip(1), s(at));
        assert!(arrival.admitted.is_ok());
        assert_eq!(arrival.going, [Going::Gracefully(goes)]);
        world.table.gone(goes);
    }
}

#[test]
fn known_ones_do_not_count_as_strangers_and_are_left_alone_by_them() {
    let mut world = World::new(100, 100, 2);
    let agents: Vec<u64> = (0..20).map(|_| world.agent(ip(1), s(0))).collect();
    for second in 10..200 {
        let arrival = world.arrive(ip(2), s(second));
        assert!(arrival.admitted.is_ok());
        for going in arrival.going {
            let (Going::Gracefully(id) | Going::AtOnce(id)) = going;
            assert!(!agents.contains(&id));
        }
    }
    assert_eq!(world.table.counts(), (2, 20));
}

#[test]
fn an_address_with_more_than_its_share_pays_first() {
    let mut world = World::new(100, 100, 8);
    // Honest and idle for long; the attacker is fresh and keeps a request under way on each of its connections.
    let honest = [world.guest(ip(1), s(0)), world.guest(ip(2), s(0))];
    for n in 0..6 {
        let id = world.guest(ip(9), s(60 + n));
        world.busy(id, s(60 + n));
    }
    for n in 0..100 {
        let arrival = world.arrive(ip(9), s(70 + n));
        let [Going::Gracefully(gone), ..] = arrival.going[..] else { panic!("{arrival:?}") };
        assert!(!honest.contains(&gone));
        world.busy(arrival.admitted.unwrap(), s(70 + n));
        world.table.gone(gone);
    }
    // A newcomer takes a place from it, too, not from those who have one each.
    let arrival = world.arrive(ip(3), s(200));
    let [Going::Gracefully(gone), ..] = arrival.going[..] else { panic!("{arrival:?}") };
    assert!(!honest.contains(&gone));
}

#[test]
fn a_newcomer_is_not_what_makes_room_for_the_next_one() {
    // All places are held by connections that have been busy for long, each of another address.
    let mut world = World::new(100, 100, 8);
    for n in 0..8 {
        let id = world.guest(ip(n), s(0));
        world.busy(id, s(1));
    }
    let newcomers: Vec<u64> = (0..5)
        .map(|n| {
            let arrival = world.arrive(ip(100 + n), s(60));
            let [Going::Gracefully(gone), ..] = arrival.going[..] else { panic!("{arrival:?}") };
            assert!(gone < 8);
            arrival.admitted.unwrap()
        })
        .collect();
    assert!(newcomers.iter().all(|id| world.table.strangers.contains_key(id)));
}

#[test]
fn when_all_is_full_idle_ones_go_and_working_agents_stay() {
    let mut world = World::new(32, 32, 8);
    // 30 of 32: from there on room is made.
    let agents: Vec<u64> = (0..30).map(|_| world.agent(ip(1), s(0))).collect();
    for id in &agents[1..] {
        world.busy(*id, s(1));
    }
    let arrival = world.arrive(ip(2), s(60));
    assert_eq!(arrival.going, [Going::Gracefully(agents[0])]);
    let first = arrival.admitted.unwrap();
    // The stranger has to go, though it has just come, since agents at work stay.
    let arrival = world.arrive(ip(3), s(61));
    assert_eq!(arrival.going, [Going::Gracefully(first)]);
    world.table.gone(first);
    // Newcomers become agents at work until nobody is left who could go.
    let works = |world: &mut World, id| {
        world.table.authenticated(id);
        world.busy(id, s(62));
    };
    works(&mut world, arrival.admitted.unwrap());
    let arrival = world.arrive(ip(4), s(63));
    assert_eq!(arrival.going, []);
    works(&mut world, arrival.admitted.unwrap());
    // With the idle one, which has been told to go and has not gone, these are 32.
    let arrival = world.arrive(ip(4), s(63));
    assert_eq!(arrival.going, [Going::AtOnce(agents[0])]);
    works(&mut world, arrival.admitted.unwrap());
    assert_eq!(world.table.counts(), (0, 32));
    let arrival = world.arrive(ip(5), s(64));
    assert_eq!(arrival, Arrival { admitted: Err(Refusal::Full), going: vec![] });
    // One ends, one may come.
    world.table.gone(agents[5]);
    assert!(world.arrive(ip(5), s(64)).admitted.is_ok());
}

#[test]
fn those_who_take_their_time_to_close_are_cut_off() {
    let mut world = World::new(100, 100, 4);
    for second in 0..4 {
        world.guest(ip(1), s(second));
    }
    let mut cut = 0;
    // Nobody goes when told.
    for second in 4..50 {
        let arrival = world.arrive(ip(1), s(second));
        assert!(arrival.admitted.is_ok());
        cut += arrival.going.iter().filter(|going| matches!(going, Going::AtOnce(_))).count();
        assert!(world.table.closing.len() <= 2);
    }
    assert_eq!(cut, 45);
}

#[test]
fn what_a_known_one_has_under_way_is_not_cut_off() {
    let mut world = World::new(16, 16, 4);
    let agents: Vec<u64> = (0..15).map(|_| world.agent(ip(1), s(0))).collect();
    let told = world.arrive(ip(2), s(10)).going;
    assert_eq!(told, [Going::Gracefully(agents[0])]);
    // A request came in before it was told.
    world.busy(agents[0], s(10));
    for id in &agents[1..] {
        world.busy(*id, s(10));
    }
    // Sixteen are open, with that one; the stranger goes instead.
    let arrival = world.arrive(ip(2), s(11));
    assert!(arrival.admitted.is_ok(), "{arrival:?}");
    assert!(!arrival.going.contains(&Going::AtOnce(agents[0])));
}

#[test]
fn an_address_has_its_limit() {
    let mut world = World::new(100, 3, 50);
    let agents = [0; 3].map(|_| world.agent(ip(1), s(0)));
    agents.iter().for_each(|id| world.busy(*id, s(0)));
    assert_eq!(world.arrive(ip(1), s(60)).admitted, Err(Refusal::Address));
    assert!(world.arrive(ip(2), s(60)).admitted.is_ok());
    // One of them has nothing to do for a while: it makes room.
    world.activities[&agents[1]].ended(|| s(60));
    assert_eq!(world.arrive(ip(1), s(61)).admitted, Err(Refusal::Address));
    let arrival = world.arrive(ip(1), s(70));
    assert_eq!(arrival.going, [Going::Gracefully(agents[1])]);
    assert!(arrival.admitted.is_ok());
}

#[test]
fn the_smallest_limits_work() {
    let mut world = World::new(1, 1, 1);
    let first = world.guest(ip(1), s(0));
    let arrival = world.arrive(ip(2), s(1));
    assert_eq!(arrival.going, [Going::AtOnce(first)]);
    world.table.authenticated(arrival.admitted.unwrap());
    world.busy(arrival.admitted.unwrap(), s(1));
    assert_eq!(world.arrive(ip(2), s(2)).admitted, Err(Refusal::Address));
    assert_eq!(world.arrive(ip(3), s(2)).admitted, Err(Refusal::Full));
}
