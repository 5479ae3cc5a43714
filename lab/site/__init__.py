"""The results site: static pages about nights of runs, for people who open them every morning."""
