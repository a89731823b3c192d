package guard

// All is several constraints on one text: a token must be allowed by each.
//
// A Guard with a Grammar that was made for the same vocabulary and scripts never comes to a dead end: what the grammar allows, the guard
// allows too. Of two grammars that cannot be said.
type All []Constraint

// Mask implements Constraint.
func (a All) Mask(logits []float32) error {
	for _, c := range a {
		if err := c.Mask(logits); err != nil {
			return err
		}
	}
	return nil
}

// Accept implements Constraint. A token that Mask leaves is accepted by each; of another one some may have taken note when it fails.
func (a All) Accept(id int32) error {
	for _, c := range a {
		if err := c.Accept(id); err != nil {
			return err
		}
	}
	return nil
}

// Done implements Constraint: each is done.
func (a All) Done() bool {
	for _, c := range a {
		if !c.Done() {
			return false
		}
	}
	return true
}
