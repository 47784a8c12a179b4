//! `kill -9` under load: the process loses everything that only memory held, the kernel keeps its pages.

use callboard_tests::app::App;
use callboard_tests::node::Setup;
use callboard_tests::wait::PATIENCE;

use crate::ledger::{KIND, Load, acknowledged, check, fresh, soon, work_for_a_while};
use crate::{ROUNDS, dose};

const WRITERS: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_every_acknowledged_transaction_is_there_whole_and_no_reminder_is_lost() {
    let rounds = dose(ROUNDS, 2);
    let app = App::hosting(&[KIND]).await;
    let mut node = Setup::default().app(&app).ready().await;
    let mut ledgers = fresh(WRITERS);
    for round in 1..=rounds {
        let before = acknowledged(&ledgers);
        let load = Load::start(&node, ledgers);
        for n in 0..5 {
            node.remind(KIND, &format!("soon-{round}-{n}"), "r", soon()).await;
        }
        work_for_a_while().await;
        node.kill();
        ledgers = load.stop().await;
        node.restart_ready().await;
        let told = acknowledged(&ledgers);
        assert!(told > before, "no transaction was acknowledged in round {round}");
        let verdict = check(&node, &mut ledgers).await;
        assert!(verdict.is_clean(), "round {round}: {verdict:#?}");
        for n in 0..5 {
            app.wait_for(1, &format!("/actors/{KIND}/soon-{round}-{n}/method/remind/r"), PATIENCE).await;
        }
        println!("round {round}/{rounds}: {} transactions acknowledged, all there and whole", told - before);
    }
    assert!(!node.log().contains("panicked"));
}
