package config

// AdminAuth says who may change something through the admin port: retry and drop dead letters, purge, sync, and what costs as many
// calls. Reading is for whoever reaches the port.
type AdminAuth struct {
	// HTPasswd is a file of users and bcrypt hashes, as htpasswd -B writes it; it is read again when it changes. Whoever changes
	// something then has to log in, on this host as well. Default: none, and only this host may, by a loopback address.
	HTPasswd string `yaml:"htpasswd"`
	// Insecure has passwords come over plain HTTP to an admin address that is not loopback: for what stands behind a load
	// balancer that speaks TLS. Default: false.
	Insecure bool `yaml:"insecure"`
}

func (c *checker) adminAuth(cfg *Config) {
	a := &cfg.AdminAuth
	c.path(&a.HTPasswd)
	switch {
	case a.HTPasswd == "" && a.Insecure:
		c.problem("adminAuth.insecure", "is for htpasswd: there are no passwords to send")
	case a.HTPasswd != "" && !a.Insecure && !loopback(cfg.Admin):
		c.problem("adminAuth", "passwords come over plain HTTP to %s, which is not loopback: set admin to a loopback address, or say insecure: true", cfg.Admin)
	}
}
