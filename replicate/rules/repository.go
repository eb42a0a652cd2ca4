package rules

// MatchRepo reports whether any rule wants images of the repository, whatever their tags: what need not be listed.
func (s *Set) MatchRepo(repo string) bool {
	if s == nil || !s.explicit {
		return true
	}
	for _, r := range s.rules {
		if r.wantsRepo(repo) {
			return true
		}
	}
	return false
}
