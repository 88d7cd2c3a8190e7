//! What the API server says of the watches that it serves.

use kube::Client;

/// How many single config maps are watched.
pub(super) async fn of_config_maps(client: &Client) -> anyhow::Result<usize> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    Ok(count(&client.request_text(request).await?))
}

/// A watch of one object has the scope `resource`.
fn count(metrics: &str) -> usize {
    let is_meant = |line: &&str| {
        let labels = [r#"resource="configmaps""#, r#"scope="resource""#, r#"verb="WATCH""#];
        line.starts_with("apiserver_longrunning_requests{") && labels.iter().all(|label| line.contains(label))
    };
    let values =
        metrics.lines().filter(is_meant).filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok());
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_of_single_config_maps_are_counted() {
        let line = |resource: &str, scope: &str, value: u8| {
            format!(
                "apiserver_longrunning_requests{{component=\"apiserver\",resource=\"{resource}\",scope=\"{scope}\",verb=\"WATCH\"}} {value}\n"
            )
        };
        let lines = [
            line("configmaps", "resource", 11),
            line("configmaps", "cluster", 3),
            line("secrets", "resource", 5),
        ];
        assert_eq!(count(&lines.concat()), 11);
    }
}
