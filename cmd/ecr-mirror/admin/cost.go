package admin

// Prices are US dollars per GB of 2^30 bytes: what leaves the source's region, what is read through NAT, and what is served, on
// average, across zones.
type Prices struct {
	TransferPerGB float64 `json:"transferPerGB"`
	NATPerGB      float64 `json:"natPerGB"`
	ZonePerGB     float64 `json:"zonePerGB"`
}

// Saving estimates what the mirror saved since the process started, in US dollars:
//
//	transfer = (served - crossed) × transferPerGB     what clients would have pulled across regions, less what the mirror did
//	nat      = crossed × natPerGB                     what the mirror read from the source came through NAT
//	zones    = served × zonePerGB                     a mirror shared by zones serves some pulls across them
//	net      = transfer - nat - zones
//
// It leaves out what clients would have paid for NAT themselves, storage, requests and machines, and cannot know whether a client
// would have pulled at all. Crossed holds replication too: what nobody has pulled yet is a cost.
type Saving struct {
	Prices   Prices  `json:"prices"`
	Served   int64   `json:"servedBytes"`  // to clients
	Crossed  int64   `json:"crossedBytes"` // read from sources, by pulls and by replication
	Transfer float64 `json:"transferUSD"`
	NAT      float64 `json:"natUSD"`
	Zones    float64 `json:"zonesUSD"`
	Net      float64 `json:"netUSD"`
}

const bytesPerGB = 1 << 30

func savingOf(p Prices, served, crossed int64) Saving {
	s := Saving{Prices: p, Served: served, Crossed: crossed,
		Transfer: float64(served-crossed) / bytesPerGB * p.TransferPerGB,
		NAT:      float64(crossed) / bytesPerGB * p.NATPerGB,
		Zones:    float64(served) / bytesPerGB * p.ZonePerGB}
	s.Net = s.Transfer - s.NAT - s.Zones
	return s
}
