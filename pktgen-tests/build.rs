//! Servers of the three gRPC services of a SPIRE agent, for the agent that the tests play. Out of the same
//! .proto files as ctrl's clients, and with messages of its own.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["workload.proto", "delegatedidentity.proto", "brokerapi.proto"], ["../ctrl/proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .include_file("apis.rs")
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed=../ctrl/proto");
    Ok(())
}
