"""Who learns the relative gap from windows: each a module, behind one seam (`learner.Learner`)."""
