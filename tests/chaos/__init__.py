"""The scorecard of failover: real faults, real sockets, a real Parapet, official SDKs as judges."""
