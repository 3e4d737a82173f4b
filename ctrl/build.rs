//! Clients of the three gRPC services of a SPIRE agent, out of their .proto files; no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["workload.proto", "delegatedidentity.proto", "brokerapi.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .include_file("apis.rs")
        // They hold private keys: source/spire/proto.rs says what of them may be shown.
        .skip_debug([".X509SVID", ".spiffe.broker.X509SVID", ".spire.api.agent.delegatedidentity.v1.X509SVIDWithKey"])
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
