//! Who may read the pages, decided by a real Kubernetes API server.

use tally_integration::kube::{Kube, programs};

#[test]
fn the_api_server_of_these_tests_keeps_its_content_over_a_restart() {
    if let Err(reason) = programs() {
        println!("{reason}");
        return;
    }
    let mut kube = Kube::start().unwrap();
    kube.service_account("default", "scraper", 600).unwrap();
    kube.stop_api();
    assert!(kube.call("GET", "/readyz", None).is_err(), "it should be gone");
    kube.start_api().unwrap();
    assert_eq!(kube.call("GET", "/api/v1/namespaces/default/serviceaccounts/scraper", None).unwrap().status, 200);
}
