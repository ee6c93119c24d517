"""FreeSWITCH: the gate by outbound event socket, call ends by inbound event socket."""
